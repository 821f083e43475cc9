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

// In float64 the suite checks bits, views and memory; the numbers themselves stand against finite differences.
func TestConformanceFloat64(t *testing.T) {
	enginetest.Run(t, func(threads int) engine.Engine { return portable.New[float64](threads) }, 1e-15)
}
