package t5

import "github.com/dptune/dpt/model/engine"

// Check verifies that w holds every tensor of the architecture, each in its shape, without packing
// any: the check of a checkpoint for a process that does not compute. The error is New's.
func Check(cfg Config, w Weights) error {
	_, err := New(shapesOnly{}, cfg, w, Options{})
	return err
}

// shapesOnly is an engine for Check: it accepts weights and keeps nothing. Its ops panic.
type shapesOnly struct{ engine.Engine }

func (shapesOnly) NewWorkspace() engine.Workspace                        { return nil }
func (shapesOnly) NewLinear(engine.LinearSpec) (engine.Linear, error)    { return nil, nil }
func (shapesOnly) NewHeads(int, int, []float32) (engine.Heads, error)    { return nil, nil }
func (shapesOnly) NewTable(int, int, []float32) (engine.Table, error)    { return nil, nil }
func (shapesOnly) TableLinear(engine.Table) (engine.Linear, error)       { return nil, nil }
func (shapesOnly) NewGain([]float32) (engine.Gain, error)                { return nil, nil }
func (shapesOnly) NewBias(int, int, int, []float32) (engine.Bias, error) { return nil, nil }
