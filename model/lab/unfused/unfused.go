// Package unfused is part of the lab, not of the trainer: its engine takes the fused ops of another
// one apart, to measure what fusing brings. Additions to the residual stream or to a gradient are
// passes of their own over memory. Ops that the contract cannot split, such as attention and
// activations, pass unchanged.
package unfused

import "github.com/dptune/dpt/model/engine"

// Engine is an engine.Trainer whose fused additions are separate.
type Engine struct {
	engine.Trainer
	tmp  engine.Workspace // memory during an op
	rows []int32
}

var (
	_ engine.Trainer  = (*Engine)(nil)
	_ engine.Observer = (*Engine)(nil)
)

// New takes e's ops apart.
func New(e engine.Trainer) *Engine { return &Engine{Trainer: e, tmp: e.NewWorkspace()} }

// Numerics is the other engine's with a mark: a separate addition rounds once more than a fused
// one.
func (u *Engine) Numerics() string { return u.Trainer.Numerics() + "/unfused" }

// Part implements engine.Observer.
func (u *Engine) Part(name string) {
	if o, ok := u.Trainer.(engine.Observer); ok {
		o.Part(name)
	}
}

// AddNormForward implements engine.Engine: a copy, an addition and a norm.
func (u *Engine) AddNormForward(sum, y, r, x, delta engine.Tensor, g engine.Gain, eps float64) {
	u.tmp.Reset()
	if sum != x {
		u.Trainer.GatherRows(sum, x, u.tmp.Index(u.numbers(x.Rows(), false)))
	}
	u.add(sum, delta)
	u.Trainer.NormForward(y, r, sum, g, eps)
}

// NormBackward implements engine.Engine: a norm's gradient and an addition.
func (u *Engine) NormBackward(dx, dy, x, r engine.Tensor, g engine.Gain) {
	u.tmp.Reset()
	own := u.tmp.Tensor(engine.Wide, dx.Rows(), dx.Cols())
	u.Trainer.Zero(own)
	u.Trainer.NormBackward(own, dy, x, r, g)
	u.add(dx, own)
}

// LinearBackward implements engine.Engine: a product and an addition.
func (u *Engine) LinearBackward(dx, dy engine.Tensor, w engine.Linear, accumulate bool) {
	if !accumulate {
		u.Trainer.LinearBackward(dx, dy, w, false)
		return
	}
	u.tmp.Reset()
	own := u.tmp.Tensor(engine.Wide, dx.Rows(), dx.Cols())
	u.Trainer.LinearBackward(own, dy, w, false)
	u.add(dx, own)
}

// add adds delta to sum, row by row: what EmbedBackward does for a prompt with a row for each.
func (u *Engine) add(sum, delta engine.Tensor) {
	if sum.Rows() > 0 {
		u.Trainer.EmbedBackward(sum, delta, u.tmp.Index(u.numbers(sum.Rows(), true)))
	}
}

// numbers are 0 to n-1, or their complements.
func (u *Engine) numbers(n int, complement bool) []int32 {
	u.rows = u.rows[:0]
	for i := range int32(n) {
		if complement {
			i = ^i
		}
		u.rows = append(u.rows, i)
	}
	return u.rows
}
