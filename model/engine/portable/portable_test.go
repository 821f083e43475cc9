package portable_test

import (
	"testing"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/portable"
	"github.com/dptune/dpt/model/internal/enginetest"
)

func TestConformanceFloat32(t *testing.T) {
	enginetest.Run(t, func(threads int) engine.Engine { return portable.New[float32](threads) }, 2e-6)
}

// TestConformanceFloat64: in float64 the suite checks bits, views and memory; TestGradients checks
// the numbers by finite differences.
func TestConformanceFloat64(t *testing.T) {
	enginetest.Run(t, func(threads int) engine.Engine { return portable.New[float64](threads) }, 1e-15)
}
