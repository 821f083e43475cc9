package worker

import (
	"errors"
	"fmt"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/prompt"
)

// Backbone is what a worker asks of a frozen model; *model.Backbone documents the methods. One
// goroutine at a time uses it.
type Backbone interface {
	Dim() int
	Name() string
	EngineName() string
	Digest() [32]byte
	Numerics() string
	LossGrads(prompt []float32, microBatches [][]model.Pair) ([]model.Result, [][]float32, error)
	Evaluate(prompt []float32, pairs []model.Pair, maxNew int) ([][]int32, model.Result, error)
	Close() error
}

// trainableBackbone is a Backbone whose own weights can be trained; *model.Backbone documents the
// methods.
type trainableBackbone interface {
	Weights() int
	WeightsLossGrad(weights []float32, pairs []model.Pair, into []float32) (model.Result, []float32, error)
	WeightsEvaluate(weights []float32, pairs []model.Pair, maxNew int) ([][]int32, model.Result, error)
}

// objective is what a job trains: one vector of parameters, its loss and its gradient.
type objective interface {
	// parameters returns the length of the vector.
	parameters() int
	// promptRows returns the number of virtual tokens before a source.
	promptRows() int
	// lossGrads returns the contributions of micro-batches. Their bits do not depend on the other
	// micro-batches of the call. It may write a gradient into the memory of into, which is nil or a
	// gradient that is not needed any more.
	lossGrads(params []float32, microBatches [][]model.Pair, into []float32) ([]*contribution, error)
	// sharesPasses reports whether lossGrads takes less time for several micro-batches together.
	sharesPasses() bool
	// evaluate decodes each pair's source greedily, up to maxNew tokens, and scores its target.
	evaluate(params []float32, pairs []model.Pair, maxNew int) ([][]int32, model.Result, error)
}

// newObjective returns the objective that a job's specification names, on a backbone. It checks
// that they fit together.
func newObjective(b Backbone, spec *coordpb.TrainSpec) (objective, error) {
	if b.Dim() != int(spec.Dim) {
		return nil, fmt.Errorf("model %s has d_model %d, want the job's %d", b.Name(), b.Dim(), spec.Dim)
	}
	if spec.Method == coordpb.FineTuning {
		f, ok := b.(trainableBackbone)
		if !ok {
			return nil, errors.New("full fine-tuning of a backbone whose weights cannot be trained")
		}
		return fullFineTuning{f}, nil
	}
	conf := prompt.Config{
		Method:     spec.Method,
		Dim:        int(spec.Dim),
		Length:     int(spec.Length),
		Bottleneck: int(spec.Bottleneck),
	}
	if err := conf.Validate(); err != nil {
		return nil, err
	}
	if n := optim.StateSize(conf.Size()); n > coordpb.MaxMessage {
		return nil, fmt.Errorf("a prompt of %d parameters, whose state has %d bytes, want at most %d",
			conf.Size(), n, coordpb.MaxMessage)
	}
	graph, err := prompt.NewGraph(conf)
	if err != nil {
		return nil, err
	}
	return &promptTuning{b, conf, graph}, nil
}

// promptTuning trains a prompt's parametrization before a frozen backbone.
type promptTuning struct {
	backbone Backbone
	conf     prompt.Config
	graph    *prompt.Graph
}

func (p *promptTuning) parameters() int { return p.conf.Size() }
func (p *promptTuning) promptRows() int { return p.conf.Length }

// lossGrads computes the prompt's gradients of all micro-batches when the graph of the first one
// asks for its own. The other graphs compute the same prompt.
func (p *promptTuning) lossGrads(params []float32, microBatches [][]model.Pair, _ []float32) ([]*contribution, error) {
	var results []model.Result
	var grads [][]float32
	list := make([]*contribution, len(microBatches))
	for i := range microBatches {
		loss, grad, err := p.graph.Gradient(params, func(rows []float32) (float64, []float32, error) {
			if i == 0 {
				var err error
				if results, grads, err = p.backbone.LossGrads(rows, microBatches); err != nil {
					return 0, nil, withoutIndex(err)
				}
			}
			return results[i].Loss, grads[i], nil
		})
		if err != nil {
			return nil, err
		}
		list[i] = &contribution{grad: grad, loss: loss, tokens: results[i].Tokens}
	}
	return list, nil
}

// withoutIndex returns what is wrong with a micro-batch, without its index in a call: the caller
// knows which one it is.
func withoutIndex(err error) error {
	var failed *model.MicroBatchError
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

func (p *promptTuning) sharesPasses() bool { return true }

func (p *promptTuning) evaluate(
	params []float32, pairs []model.Pair, maxNew int,
) ([][]int32, model.Result, error) {
	rows, err := p.graph.Embeddings(params)
	if err != nil {
		return nil, model.Result{}, err
	}
	return p.backbone.Evaluate(rows, pairs, maxNew)
}

// fullFineTuning trains the backbone's own weights, without a prompt.
type fullFineTuning struct{ backbone trainableBackbone }

func (w fullFineTuning) parameters() int { return w.backbone.Weights() }
func (w fullFineTuning) promptRows() int { return 0 }

func (w fullFineTuning) lossGrads(params []float32, microBatches [][]model.Pair, into []float32) (
	[]*contribution, error,
) {
	list := make([]*contribution, len(microBatches))
	for i, pairs := range microBatches {
		res, grad, err := w.backbone.WeightsLossGrad(params, pairs, into)
		if err != nil {
			return nil, err
		}
		list[i], into = &contribution{grad: grad, loss: res.Loss, tokens: res.Tokens}, nil
	}
	return list, nil
}

// sharesPasses reports false, as a gradient of all weights takes too much memory to have several.
func (w fullFineTuning) sharesPasses() bool { return false }

func (w fullFineTuning) evaluate(
	params []float32, pairs []model.Pair, maxNew int,
) ([][]int32, model.Result, error) {
	return w.backbone.WeightsEvaluate(params, pairs, maxNew)
}
