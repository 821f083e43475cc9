package t5

import "github.com/dptune/dpt/model/engine"

// Check verifies that w holds every tensor of the architecture, each in its shape, without packing
// any: the check of a checkpoint for a process that does not compute. The error is New's.
func Check(cfg Config, w Weights) error {
	if c, ok := w.(checker); ok {
		w = &unread{Weights: w, checker: c}
	}
	_, err := New(shapesOnly{}, cfg, w, Options{})
	return err
}

// checker is implemented by weights that know Float32's error without reading the elements.
type checker interface {
	Check(name string, shape ...int) error
}

// unread are weights whose elements all read as 0.
type unread struct {
	Weights
	checker
	zeros []float32 // as many as the largest tensor so far has
}

func (u *unread) Float32(name string, shape ...int) ([]float32, error) {
	if err := u.Check(name, shape...); err != nil {
		return nil, err
	}
	size := 1
	for _, n := range shape {
		size *= n
	}
	if size > len(u.zeros) {
		u.zeros = make([]float32, size)
	}
	return u.zeros[:size], nil
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
