package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dptune/dpt/allreduce"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/optim"
)

// trainer computes the steps and evaluations of one job: it holds what is trained, the trainer
// state and the accumulator. One generation at a time uses it, from its goroutine.
type trainer struct {
	// Set by newTrainer and constant from then on.
	jobID       string
	workerID    string
	mark        func(point string) // worker.mark
	objective   objective
	adam        optim.AdamW
	schedule    optim.Linear
	maxNorm     float64
	stepTimeout time.Duration

	state         optim.State
	digest        ids.Digest // of state; zero while state is not whole
	contributions *contributionCache
	work          gradientWork           // in the step in flight
	resumedAfter  int64                  // the step that the generation started after
	acc           *allreduce.Accumulator // the gradient, then the loss sum and the token count
	grad          []float32              // the mean gradient
	spareGrad     []float32              // a micro-batch's gradient that is not needed any more, for its memory
	speed         float64                // rows a second in the latest call of the objective; 0 before the first
}

// maxNewTokens bounds the outputs of an evaluation, whose memory and time grow with it.
const maxNewTokens = 1 << 16

// dataError is a failure that the examples cause on any machine.
type dataError struct {
	err        error
	microBatch int32 // 1 + the index of the micro-batch that fails; 0 if all ranks fail alike
}

func (e *dataError) Error() string { return e.err.Error() }
func (e *dataError) Unwrap() error { return e.err }

// newTrainer returns the trainer for the job that a Welcome describes, and makes it own's.
func newTrainer(own *worker, w *coordpb.Welcome) (*trainer, error) {
	b, spec := own.backbone, w.Train
	if spec == nil {
		return nil, errors.New("found a welcome without a training specification, want one with it")
	}
	what, err := newObjective(b, spec)
	if err != nil {
		return nil, err
	}
	n := what.parameters()
	t := &trainer{
		jobID:     w.JobId,
		workerID:  own.ID,
		mark:      own.mark,
		objective: what,
		adam: optim.AdamW{
			LR:          spec.LearningRate,
			Beta1:       spec.Beta1,
			Beta2:       spec.Beta2,
			Eps:         spec.Epsilon,
			WeightDecay: spec.WeightDecay,
		},
		schedule:      optim.Linear{Warmup: spec.WarmupSteps, Total: spec.TotalSteps},
		maxNorm:       spec.MaxGradNorm,
		stepTimeout:   time.Duration(w.StepTimeoutMs) * time.Millisecond,
		contributions: own.contributions.forJob(w.JobId),
	}
	if before := own.trainer; before != nil && before.jobID == t.jobID && len(before.grad) == n {
		// A session has ended, the job has not: keep the state and the memory, which may be large.
		t.state, t.digest = before.state, before.digest
		t.acc, t.grad, t.spareGrad = before.acc, before.grad, before.spareGrad
	} else {
		own.trainer = nil
		t.acc, t.grad = allreduce.NewAccumulator(n+2), make([]float32, n)
	}
	own.trainer = t
	return t, nil
}

// restore takes the state that the coordinator sends with a generation.
func (t *trainer) restore(data []byte, step int64) error {
	var s optim.State
	if err := s.UnmarshalBinary(data); err != nil {
		return err
	}
	if s.Step != step || len(s.Params) != t.objective.parameters() {
		return fmt.Errorf("state after step %d with %d parameters, want step %d and %d",
			s.Step, len(s.Params), step, t.objective.parameters())
	}
	if plantedRestore != nil {
		s = plantedRestore(t.state, s)
	}
	t.state, t.resumedAfter, t.work = s, step, gradientWork{}
	t.contributions.dropThrough(step)
	t.digest = t.state.Digest()
	return nil
}

// handle does the work that a Plan or an Evaluate asks for, and returns the answer to the
// coordinator.
func (t *trainer) handle(
	ctx context.Context, io stepIO, m *coordpb.CoordinatorMessage,
) (*coordpb.WorkerMessage, error) {
	switch b := m.Body.(type) {
	case *coordpb.CoordinatorMessage_Plan:
		r, err := t.step(ctx, io, b.Plan)
		return &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Report{Report: r}}, err
	case *coordpb.CoordinatorMessage_Evaluate:
		r, err := t.evaluate(b.Evaluate)
		return &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Evaluation{Evaluation: r}}, err
	}
	return nil, fmt.Errorf("unknown work %T", m.Body)
}

// stepIO connects a step with the other workers and the coordinator.
type stepIO struct {
	ring     func(context.Context) (*allreduce.Ring, error) // waits until the ring has formed
	progress func(step int64, done int) error               // reports how many micro-batches are computed
	blobs    coordpb.BlobsClient                            // where the coordinator keeps large states
}

// step does one training step: the shard's gradient, the all-reduce, the update.
func (t *trainer) step(ctx context.Context, io stepIO, p *coordpb.Plan) (*coordpb.Report, error) {
	if p.Step != t.state.Step+1 {
		return nil, fmt.Errorf("plan of step %d, want one of step %d", p.Step, t.state.Step+1)
	}
	t.contributions.dropThrough(p.Committed)
	r := &coordpb.Report{Generation: p.Generation, Step: p.Step}
	if err := t.gradient(ctx, io, p, r); err != nil {
		return nil, fmt.Errorf("step %d: %w", p.Step, err)
	}

	// Sum the gradient over all workers.
	ring, err := io.ring(ctx)
	if err != nil {
		return nil, err
	}
	reduceCtx, cancel := context.WithTimeout(ctx, t.stepTimeout)
	defer cancel()
	t.mark(beforeReduce)
	if err := ring.AllReduce(reduceCtx, allreduce.Step(p.Step), t.acc); err != nil {
		return nil, err
	}
	t.mark(afterReduce)

	// Update the state, which is not whole meanwhile, and report or store it.
	t.digest = ids.Digest{}
	if err := t.update(r); err != nil {
		return nil, &dataError{err: fmt.Errorf("step %d: %w", p.Step, err)}
	}
	if plantedUpdate != nil {
		plantedUpdate(t.workerID, t.state.Step == t.resumedAfter+1, &t.state, func() error { return t.update(r) })
	}
	t.mark(afterUpdate)
	t.digest = t.state.Digest()
	r.StateDigest = slices.Clone(t.digest[:])
	switch {
	case p.StoreState:
		err = t.storeState(ctx, io.blobs, p.Generation)
	case p.AttachState:
		r.State, err = t.state.MarshalBinary()
	}
	return r, err
}

// update turns the reduced sums into the mean gradient, clips it and applies AdamW. Every worker
// does the same arithmetic on the same integers.
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
		return nil, fmt.Errorf("evaluation of the state after step %d, want after step %d", e.Step, t.state.Step)
	}
	if e.MaxNewTokens < 0 || e.MaxNewTokens > maxNewTokens {
		return nil, fmt.Errorf("evaluation of step %d with outputs of %d tokens, want 0 to %d",
			e.Step, e.MaxNewTokens, maxNewTokens)
	}
	outputs, score, err := t.objective.evaluate(t.state.Params, pairsOf(e.Examples), int(e.MaxNewTokens))
	if err != nil {
		return nil, fmt.Errorf("evaluate step %d: %w", e.Step, err)
	}
	r := &coordpb.EvaluationReport{Generation: e.Generation, Step: e.Step, Chunk: e.Chunk}
	for i := range outputs {
		r.Outputs = append(r.Outputs, &coordpb.Output{
			Tokens:     outputs[i],
			LossSum:    score.Losses[i],
			LossTokens: int64(score.Counts[i]),
		})
	}
	return r, nil
}

// pairsOf converts examples to what the model takes.
func pairsOf(examples []*coordpb.Example) []model.Pair {
	pairs := make([]model.Pair, len(examples))
	for i, e := range examples {
		pairs[i] = model.Pair{Source: e.Source, Target: e.Target}
	}
	return pairs
}
