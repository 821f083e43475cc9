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
	LossGrad(prompt []float32, pairs []model.Pair) (model.Result, []float32, error)
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
	// lossGrad returns the loss summed over the pairs' target tokens, the number of these tokens,
	// and the gradient of that sum. It may write the gradient into the memory of into, which is nil
	// or a gradient that is not needed any more.
	lossGrad(params []float32, pairs []model.Pair, into []float32) (
		loss float64, tokens int, grad []float32, err error)
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

func (p *promptTuning) lossGrad(params []float32, pairs []model.Pair, _ []float32) (
	loss float64, tokens int, grad []float32, err error,
) {
	loss, grad, err = p.graph.Gradient(params, func(rows []float32) (float64, []float32, error) {
		res, d, err := p.backbone.LossGrad(rows, pairs)
		tokens = res.Tokens
		return res.Loss, d, err
	})
	return loss, tokens, grad, err
}

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

func (w fullFineTuning) lossGrad(params []float32, pairs []model.Pair, into []float32) (
	loss float64, tokens int, grad []float32, err error,
) {
	res, grad, err := w.backbone.WeightsLossGrad(params, pairs, into)
	return res.Loss, res.Tokens, grad, err
}

func (w fullFineTuning) evaluate(
	params []float32, pairs []model.Pair, maxNew int,
) ([][]int32, model.Result, error) {
	return w.backbone.WeightsEvaluate(params, pairs, maxNew)
}
