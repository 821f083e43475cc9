package worker

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/dptune/dpt/allreduce"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/prompt"
)

// trainer holds what a step needs: the backbone, the prompt's graph, the trainer state and the accumulator.
type trainer struct {
	job         string
	backbone    Backbone
	id          string // of this worker
	mark        func(point string)
	conf        prompt.Config
	graph       *prompt.Graph
	adam        optim.AdamW
	schedule    optim.Linear
	maxNorm     float64
	stepTimeout time.Duration

	state   optim.State
	resumed int64                  // the step that the generation started after
	acc     *allreduce.Accumulator // the gradient, then the loss sum and the token count
	grad    []float32
}

// DataError is a failure that the examples cause on any machine.
type DataError struct{ err error }

func (e *DataError) Error() string { return e.err.Error() }
func (e *DataError) Unwrap() error { return e.err }

func newTrainer(own *worker, w *coordpb.Welcome) (*trainer, error) {
	b, spec := own.backbone, w.Train
	if spec == nil {
		return nil, errors.New("welcome without a training specification")
	}
	conf := prompt.Config{Method: spec.Method, Dim: int(spec.Dim), Length: int(spec.Length), Bottleneck: int(spec.Bottleneck)}
	if err := conf.Validate(); err != nil {
		return nil, err
	}
	if b.Dim() != conf.Dim {
		return nil, fmt.Errorf("the job's prompt has %d dimensions, model %s has d_model %d", conf.Dim, b.Name(), b.Dim())
	}
	graph, err := prompt.NewGraph(conf)
	if err != nil {
		return nil, err
	}
	n := conf.Size()
	return &trainer{
		job: w.JobId, backbone: b, id: own.ID, mark: own.mark, conf: conf, graph: graph,
		adam:     optim.AdamW{LR: spec.LearningRate, Beta1: spec.Beta1, Beta2: spec.Beta2, Eps: spec.Epsilon, WeightDecay: spec.WeightDecay},
		schedule: optim.Linear{Warmup: spec.WarmupSteps, Total: spec.TotalSteps}, maxNorm: spec.MaxGradNorm,
		stepTimeout: time.Duration(w.StepTimeoutMs) * time.Millisecond,
		acc:         allreduce.NewAccumulator(n + 2), grad: make([]float32, n),
	}, nil
}

// restore takes the state that the coordinator sends with a generation.
func (t *trainer) restore(data []byte, step int64) error {
	var s optim.State
	if err := s.UnmarshalBinary(data); err != nil {
		return err
	}
	if s.Step != step || len(s.Params) != t.conf.Size() {
		return fmt.Errorf("state after step %d with %d parameters, want step %d and %d", s.Step, len(s.Params), step, t.conf.Size())
	}
	if plantedRestore != nil {
		s = plantedRestore(t.state, s)
	}
	t.state, t.resumed = s, step
	return nil
}

// do does one piece of work and returns what to tell the coordinator.
func (t *trainer) do(ctx context.Context, ring *allreduce.Ring, m *coordpb.CoordinatorMessage) (*coordpb.WorkerMessage, error) {
	switch b := m.Body.(type) {
	case *coordpb.CoordinatorMessage_Plan:
		r, err := t.step(ctx, ring, b.Plan)
		return &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Report{Report: r}}, err
	case *coordpb.CoordinatorMessage_Evaluate:
		r, err := t.evaluate(b.Evaluate)
		return &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Evaluation{Evaluation: r}}, err
	}
	return nil, fmt.Errorf("unexpected work %T", m.Body)
}

// step is one training step: the shard's gradient, the all-reduce, the update.
func (t *trainer) step(ctx context.Context, ring *allreduce.Ring, p *coordpb.Plan) (*coordpb.Report, error) {
	if p.Step != t.state.Step+1 {
		return nil, fmt.Errorf("plan of step %d, this worker is after step %d", p.Step, t.state.Step)
	}
	began := time.Now()
	cost, err := t.gradient(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("step %d: %w", p.Step, err)
	}
	took := time.Since(began)
	reduceCtx, cancel := context.WithTimeout(ctx, t.stepTimeout)
	defer cancel()
	t.mark(BeforeReduce)
	if err := ring.AllReduce(reduceCtx, allreduce.Step(p.Step), t.acc); err != nil {
		return nil, err
	}
	t.mark(AfterReduce)
	r := &coordpb.Report{Generation: p.Generation, Step: p.Step, GradientNs: took.Nanoseconds(), GradientCost: cost}
	if err := t.update(r); err != nil {
		return nil, &DataError{fmt.Errorf("step %d: %w", p.Step, err)}
	}
	if plantedUpdate != nil {
		plantedUpdate(t.id, t.state.Step == t.resumed+1, &t.state, func() error { return t.update(r) })
	}
	t.mark(AfterUpdate)
	state, err := t.state.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("step %d: %w", p.Step, err)
	}
	digest := sha256.Sum256(state)
	r.StateDigest = digest[:]
	if p.AttachState {
		r.State = state
	}
	return r, nil
}

// gradient fills the accumulator with the shard's share of the global batch's summed gradient, loss and tokens.
// The sums are exact, so how the batch was dealt out leaves no trace in them.
func (t *trainer) gradient(ctx context.Context, p *coordpb.Plan) (cost int64, err error) {
	t.acc.Reset()
	limit := allreduce.Limit(int(p.MicroBatches))
	n := len(t.grad)
	for _, mb := range p.Shard {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		loss, tokens, grad, err := t.microBatch(mb.Examples)
		if err == nil {
			err = t.acc.Add(0, grad, limit)
		}
		if err == nil {
			err = t.acc.AddFloat64(n, loss, limit)
		}
		if err != nil {
			return 0, t.blame(mb.Examples, limit, err)
		}
		if err := t.acc.AddInt(n+1, int64(tokens)); err != nil {
			return 0, err
		}
		for _, e := range mb.Examples {
			cost += int64(len(e.Source) + t.conf.Length + len(e.Target))
		}
	}
	return cost, nil
}

func (t *trainer) microBatch(examples []*coordpb.Example) (loss float64, tokens int, grad []float32, err error) {
	pairs := pairsOf(examples)
	loss, grad, err = t.graph.Gradient(t.state.Params, func(rows []float32) (float64, []float32, error) {
		res, d, err := t.backbone.LossGrad(rows, pairs)
		tokens = res.Tokens
		return res.Loss, d, err
	})
	return loss, tokens, grad, err
}

// blame finds the example that makes a micro-batch fail, so that the error can name it. The numbers of an example
// are the same on any machine, so the job cannot go on elsewhere either.
func (t *trainer) blame(examples []*coordpb.Example, limit float64, cause error) error {
	for _, e := range examples {
		loss, _, grad, err := t.microBatch([]*coordpb.Example{e})
		if err == nil {
			probe := allreduce.NewAccumulator(len(grad) + 1)
			if err = probe.Add(0, grad, limit); err == nil {
				err = probe.AddFloat64(len(grad), loss, limit)
			}
		}
		if err != nil {
			return &DataError{fmt.Errorf("example %s: %w", e.Id, err)}
		}
	}
	ids := make([]string, len(examples))
	for i, e := range examples {
		ids[i] = e.Id
	}
	return &DataError{fmt.Errorf("examples %v together: %w", ids, cause)}
}

// update turns the reduced sums into the mean gradient, clips it and applies AdamW. Every worker does the same
// arithmetic on the same integers.
func (t *trainer) update(r *coordpb.Report) error {
	n := len(t.grad)
	tokens, err := t.acc.Int(n + 1)
	if err != nil {
		return fmt.Errorf("token count: %w", err)
	}
	if tokens < 1 {
		return fmt.Errorf("global batch of %d target tokens, want at least 1", tokens)
	}
	for i := range t.grad {
		t.grad[i] = float32(t.acc.Float64(i) / float64(tokens))
	}
	r.LossSum, r.Tokens = t.acc.Float64(n), tokens
	r.GradNorm = optim.ClipGlobalNorm(t.grad, t.maxNorm)
	factor := t.schedule.Factor(t.state.Step)
	r.LearningRate = t.adam.LR * factor
	return t.adam.Update(&t.state, t.grad, factor)
}

// evaluate decodes and scores a chunk of evaluation examples under the current state.
func (t *trainer) evaluate(e *coordpb.Evaluate) (*coordpb.EvaluationReport, error) {
	if e.Step != t.state.Step {
		return nil, fmt.Errorf("evaluation of step %d, this worker is after step %d", e.Step, t.state.Step)
	}
	rows, err := t.graph.Embeddings(t.state.Params)
	if err != nil {
		return nil, err
	}
	outputs, score, err := t.backbone.Evaluate(rows, pairsOf(e.Examples), int(e.MaxNewTokens))
	if err != nil {
		return nil, fmt.Errorf("evaluate step %d: %w", e.Step, err)
	}
	r := &coordpb.EvaluationReport{Generation: e.Generation, Step: e.Step, Chunk: e.Chunk}
	for i := range outputs {
		r.Outputs = append(r.Outputs, &coordpb.Output{Tokens: outputs[i], LossSum: score.Losses[i], LossTokens: int64(score.Counts[i])})
	}
	return r, nil
}

func pairsOf(examples []*coordpb.Example) []model.Pair {
	pairs := make([]model.Pair, len(examples))
	for i, e := range examples {
		pairs[i] = model.Pair{Source: e.Source, Target: e.Target}
	}
	return pairs
}
