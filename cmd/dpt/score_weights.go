package main

import (
	"fmt"

	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/t5"
	"github.com/dptune/dpt/model/tiny"
)

// weightGradient sums the gradient with respect to all weights of a model.
type weightGradient struct {
	params  []t5.Parameter
	weights []float32
	sum     []float64
}

// openWeights reads the weights in dir; "" is the embedded model.
func openWeights(dir string) (*weightGradient, error) {
	m, err := tiny.OpenModel(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = m.Close() }() // read only
	cfg, err := t5.ParseConfig(m.Config())
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", m.Name(), err)
	}
	w := &weightGradient{params: cfg.Parameters(t5.Tied(m))}
	if w.weights, err = t5.ReadAll(cfg, m); err != nil {
		return nil, fmt.Errorf("model %s: %w", m.Name(), err)
	}
	w.sum = make([]float64, len(w.weights))
	return w, nil
}

// add computes the losses of pairs and adds their gradient.
func (w *weightGradient) add(b *backbone, pairs []model.Pair) (model.Result, error) {
	result, grad, err := b.WeightsLossGrad(w.weights, pairs, nil)
	for i, v := range grad {
		w.sum[i] += float64(v)
	}
	return result, err
}

// write writes the gradient of the mean of that number of token losses: a tensor for every weight,
// under its name.
func (w *weightGradient) write(path string, tokens int) error {
	mean := make([]float32, len(w.sum))
	for i, v := range w.sum {
		mean[i] = float32(v / float64(tokens))
	}
	var tensors []checkpoint.Tensor
	for _, p := range w.params {
		tensors = append(tensors, checkpoint.F32(p.Name, p.Shape, mean[p.Offset:p.Offset+p.Size()]))
	}
	return checkpoint.Write(path, tensors, nil)
}
