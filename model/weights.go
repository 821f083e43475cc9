package model

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/t5"
)

// fullTraining is the state of full fine-tuning beside the frozen model: an engine whose weights
// change, and their current values.
type fullTraining struct {
	eng     engine.Engine
	trainer *t5.Trainer
	weights []float32
}

// Weights is the number of the model's weights. Full fine-tuning trains them as one vector in the
// order of t5.Config.Parameters.
func (b *Backbone) Weights() int {
	params := b.t5.Config().Parameters(b.tied)
	last := params[len(params)-1]
	return last.Offset + last.Size()
}

// WeightsLossGrad is LossGrad with weights in place of the model's own, without a prompt, and with
// the gradient with respect to them. All pairs are computed at once: Options.MaxMemory does not
// bound it. The gradient is written to into, if that has one number per weight, else to new memory.
func (b *Backbone) WeightsLossGrad(weights []float32, pairs []Pair, into []float32) (Result, []float32, error) {
	f, err := b.train(weights)
	if err != nil {
		return Result{}, nil, err
	}
	res, grad := newResult(pairs), into
	if len(grad) != len(weights) {
		grad = make([]float32, len(weights))
	}
	if err := f.trainer.LossGrad(pairs, res.Losses, grad); err != nil {
		return Result{}, nil, err
	}
	if err := res.finish(); err != nil {
		return Result{}, nil, err
	}
	for i, g := range grad {
		if !isFinite(float64(g)) {
			return Result{}, nil, fmt.Errorf("gradient of weight %d is %v, want a finite number", i, g)
		}
	}
	return res, grad, nil
}

// WeightsEvaluate is Evaluate with weights in place of the model's own, without a prompt.
func (b *Backbone) WeightsEvaluate(weights []float32, pairs []Pair, maxNew int) ([][]int32, Result, error) {
	f, err := b.train(weights)
	if err != nil {
		return nil, Result{}, err
	}
	res := newResult(pairs)
	out, err := f.trainer.Model().Evaluate(nil, pairs, maxNew, res.Losses)
	if err == nil {
		err = res.finish()
	}
	if err != nil {
		return nil, Result{}, err
	}
	return out, res, nil
}

// train returns an engine that holds weights. The first call opens it.
func (b *Backbone) train(weights []float32) (*fullTraining, error) {
	if n := b.Weights(); len(weights) != n {
		return nil, fmt.Errorf("%d weights, want the model's %d", len(weights), n)
	}
	same := func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) }
	if f := b.full; f != nil {
		if slices.EqualFunc(f.weights, weights, same) {
			return f, nil
		}
		f.weights = append(f.weights[:0], weights...)
		return f, f.trainer.Set(weights)
	}
	eng, _, err := newEngine(b.opt)
	if err != nil {
		return nil, err
	}
	trainer, err := t5.NewTrainer(eng, b.t5.Config(), b.tied, weights)
	if err != nil {
		return nil, errors.Join(err, eng.Close())
	}
	b.full = &fullTraining{eng: eng, trainer: trainer, weights: slices.Clone(weights)}
	return b.full, nil
}

func (f *fullTraining) close() error {
	if f == nil {
		return nil
	}
	return f.eng.Close()
}
