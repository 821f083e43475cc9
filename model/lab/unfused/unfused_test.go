package unfused_test

import (
	"testing"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/portable"
	"github.com/dptune/dpt/model/internal/enginetest"
	"github.com/dptune/dpt/model/lab/meter"
	"github.com/dptune/dpt/model/lab/unfused"
)

// TestConformance: an engine whose fused ops are taken apart still fulfills the contract.
func TestConformance(t *testing.T) {
	enginetest.Run(t, func(threads int) engine.Engine { return unfused.New(portable.New[float32](threads)) }, 2e-6)
}

// TestNumerics: separate additions round once more than fused ones, so Numerics differs.
func TestNumerics(t *testing.T) {
	enginetest.Wrapper(t, func(e engine.Trainer) engine.Engine { return unfused.New(e) })
	inner := portable.New[float32](1)
	u := unfused.New(inner)
	defer u.Close()
	if got := u.Numerics(); got == inner.Numerics() {
		t.Errorf("numerics %q, want others than the inner engine's", got)
	}
}

// TestTakesApart: a norm of a sum is a copy, an addition and a norm.
func TestTakesApart(t *testing.T) {
	m := meter.New(portable.New[float32](1))
	u := unfused.New(m)
	defer u.Close()
	g, err := u.NewGain([]float32{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	ws := u.NewWorkspace()
	var x [5]engine.Tensor
	for i := range x {
		x[i] = ws.Tensor(engine.Wide, 3, 2)
		u.Zero(x[i])
	}
	r := ws.Tensor(engine.Wide, 3, 1)
	m.Reset()
	u.Part("norm")
	u.AddNormForward(x[0], x[1], r, x[2], x[3], g, 1e-6)
	if e := m.Entries(); len(e) != 1 || e[0].Calls != 3 || e[0].Part != "norm" {
		t.Errorf("a norm of a sum is measured as %+v, want 3 ops", e)
	}
}
