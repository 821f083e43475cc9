package worker

import (
	"errors"
	"fmt"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/prompt"
)

// subject is what a job trains: one vector of parameters.
type subject interface {
	size() int // of the vector
	rows() int // virtual tokens before a source
	// lossGrad may write the gradient into the memory of one that is not needed any more; nil if there is none.
	lossGrad(params []float32, pairs []model.Pair, into []float32) (loss float64, tokens int, grad []float32, err error)
	evaluate(params []float32, pairs []model.Pair, maxNew int) ([][]int32, model.Result, error)
}

// fullTrainer is a Backbone whose own weights can be trained; *model.Backbone documents the methods.
type fullTrainer interface {
	Weights() int
	WeightsLossGrad(weights []float32, pairs []model.Pair, into []float32) (model.Result, []float32, error)
	WeightsEvaluate(weights []float32, pairs []model.Pair, maxNew int) ([][]int32, model.Result, error)
}

func newSubject(b Backbone, spec *coordpb.TrainSpec) (subject, error) {
	if b.Dim() != int(spec.Dim) {
		return nil, fmt.Errorf("the job's model has d_model %d, model %s has %d", spec.Dim, b.Name(), b.Dim())
	}
	if spec.Method == coordpb.FineTuning {
		f, ok := b.(fullTrainer)
		if !ok {
			return nil, errors.New("full fine-tuning of a backbone whose weights cannot be trained")
		}
		return weights{f}, nil
	}
	conf := prompt.Config{Method: spec.Method, Dim: int(spec.Dim), Length: int(spec.Length), Bottleneck: int(spec.Bottleneck)}
	if err := conf.Validate(); err != nil {
		return nil, err
	}
	if n := optim.StateSize(conf.Size()); n > maxMessage {
		return nil, fmt.Errorf("a prompt of %d parameters, whose state has %d bytes, want at most %d", conf.Size(), n, maxMessage)
	}
	graph, err := prompt.NewGraph(conf)
	if err != nil {
		return nil, err
	}
	return &softPrompt{b, conf, graph}, nil
}

// softPrompt trains a prompt's parametrization before a frozen backbone.
type softPrompt struct {
	backbone Backbone
	conf     prompt.Config
	graph    *prompt.Graph
}

func (p *softPrompt) size() int { return p.conf.Size() }
func (p *softPrompt) rows() int { return p.conf.Length }

func (p *softPrompt) lossGrad(params []float32, pairs []model.Pair, _ []float32) (loss float64, tokens int, grad []float32, err error) {
	loss, grad, err = p.graph.Gradient(params, func(rows []float32) (float64, []float32, error) {
		res, d, err := p.backbone.LossGrad(rows, pairs)
		tokens = res.Tokens
		return res.Loss, d, err
	})
	return loss, tokens, grad, err
}

func (p *softPrompt) evaluate(params []float32, pairs []model.Pair, maxNew int) ([][]int32, model.Result, error) {
	rows, err := p.graph.Embeddings(params)
	if err != nil {
		return nil, model.Result{}, err
	}
	return p.backbone.Evaluate(rows, pairs, maxNew)
}

// weights trains the backbone itself.
type weights struct{ backbone fullTrainer }

func (w weights) size() int { return w.backbone.Weights() }
func (w weights) rows() int { return 0 }

func (w weights) lossGrad(params []float32, pairs []model.Pair, into []float32) (loss float64, tokens int, grad []float32, err error) {
	res, grad, err := w.backbone.WeightsLossGrad(params, pairs, into)
	return res.Loss, res.Tokens, grad, err
}

func (w weights) evaluate(params []float32, pairs []model.Pair, maxNew int) ([][]int32, model.Result, error) {
	return w.backbone.WeightsEvaluate(params, pairs, maxNew)
}
