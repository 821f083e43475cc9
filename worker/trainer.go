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

// trainer holds what a step needs: what is trained, the trainer state and the accumulator.
type trainer struct {
	job         string
	id          string // of this worker
	mark        func(point string)
	subject     subject
	adam        optim.AdamW
	schedule    optim.Linear
	maxNorm     float64
	stepTimeout time.Duration

	state   optim.State
	digest  ids.Digest // of state; zero while that is not whole
	kept    *partials
	work    work                   // of the step in flight
	resumed int64                  // the step that the generation started after
	acc     *allreduce.Accumulator // the gradient, then the loss sum and the token count
	grad    []float32
	spare   []float32 // the memory of a micro-batch's gradient that nobody needs any more
}

// work is how much was computed, and how long that took. What was kept from before does not count.
type work struct {
	cost int64 // rows: source, prompt and target tokens
	took time.Duration
}

// progressInterval is the least time between two words about a shard's progress.
const progressInterval = 100 * time.Millisecond

// maxNewTokens bounds the outputs of an evaluation, whose memory and time grow with it.
const maxNewTokens = 1 << 16

// DataError is a failure that the examples cause on any machine.
type DataError struct {
	err   error
	micro int32 // 1 + the index of the micro-batch that fails; 0 where it is what all ranks do alike
}

func (e *DataError) Error() string { return e.err.Error() }
func (e *DataError) Unwrap() error { return e.err }

func newTrainer(own *worker, w *coordpb.Welcome) (*trainer, error) {
	b, spec := own.backbone, w.Train
	if spec == nil {
		return nil, errors.New("welcome without a training specification")
	}
	what, err := newSubject(b, spec)
	if err != nil {
		return nil, err
	}
	n := what.size()
	t := &trainer{
		job: w.JobId, id: own.ID, mark: own.mark, subject: what,
		adam:     optim.AdamW{LR: spec.LearningRate, Beta1: spec.Beta1, Beta2: spec.Beta2, Eps: spec.Epsilon, WeightDecay: spec.WeightDecay},
		schedule: optim.Linear{Warmup: spec.WarmupSteps, Total: spec.TotalSteps}, maxNorm: spec.MaxGradNorm,
		stepTimeout: time.Duration(w.StepTimeoutMs) * time.Millisecond,
		kept:        own.partials.of(w.JobId),
	}
	if before := own.trainer; before != nil && before.job == t.job && len(before.grad) == n {
		// A session has ended, the job has not: a large state need not come again, nor its memory be had twice.
		t.state, t.digest, t.acc, t.grad, t.spare = before.state, before.digest, before.acc, before.grad, before.spare
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
	if s.Step != step || len(s.Params) != t.subject.size() {
		return fmt.Errorf("state after step %d with %d parameters, want step %d and %d", s.Step, len(s.Params), step, t.subject.size())
	}
	if plantedRestore != nil {
		s = plantedRestore(t.state, s)
	}
	t.state, t.resumed, t.work = s, step, work{}
	t.kept.forget(step)
	t.digest = t.state.Digest()
	return nil
}

// do does one piece of work and returns what to tell the coordinator.
func (t *trainer) do(ctx context.Context, with company, m *coordpb.CoordinatorMessage) (*coordpb.WorkerMessage, error) {
	switch b := m.Body.(type) {
	case *coordpb.CoordinatorMessage_Plan:
		r, err := t.step(ctx, with, b.Plan)
		return &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Report{Report: r}}, err
	case *coordpb.CoordinatorMessage_Evaluate:
		r, err := t.evaluate(b.Evaluate)
		return &coordpb.WorkerMessage{Body: &coordpb.WorkerMessage_Evaluation{Evaluation: r}}, err
	}
	return nil, fmt.Errorf("unexpected work %T", m.Body)
}

// company is what a step needs of the other workers and of the coordinator.
type company struct {
	ring     func(context.Context) (*allreduce.Ring, error) // waits until it has formed
	progress func(step int64, done int) error               // tells the coordinator how many micro-batches are computed
	blobs    coordpb.BlobsClient                            // where the coordinator keeps large states
}

// step is one training step: the shard's gradient, the all-reduce, the update.
func (t *trainer) step(ctx context.Context, with company, p *coordpb.Plan) (*coordpb.Report, error) {
	if p.Step != t.state.Step+1 {
		return nil, fmt.Errorf("plan of step %d, this worker is after step %d", p.Step, t.state.Step)
	}
	t.kept.forget(p.Committed)
	r := &coordpb.Report{Generation: p.Generation, Step: p.Step}
	if err := t.gradient(ctx, with, p, r); err != nil {
		return nil, fmt.Errorf("step %d: %w", p.Step, err)
	}
	ring, err := with.ring(ctx)
	if err != nil {
		return nil, err
	}
	reduceCtx, cancel := context.WithTimeout(ctx, t.stepTimeout)
	defer cancel()
	t.mark(BeforeReduce)
	if err := ring.AllReduce(reduceCtx, allreduce.Step(p.Step), t.acc); err != nil {
		return nil, err
	}
	t.mark(AfterReduce)
	t.digest = ids.Digest{}
	if err := t.update(r); err != nil {
		return nil, &DataError{err: fmt.Errorf("step %d: %w", p.Step, err)}
	}
	if plantedUpdate != nil {
		plantedUpdate(t.id, t.state.Step == t.resumed+1, &t.state, func() error { return t.update(r) })
	}
	t.mark(AfterUpdate)
	t.digest = t.state.Digest()
	r.StateDigest = slices.Clone(t.digest[:])
	switch {
	case p.StoreState:
		err = t.store(ctx, with.blobs, p.Generation)
	case p.AttachState:
		r.State, err = t.state.MarshalBinary()
	}
	return r, err
}

// gradient fills the accumulator with the shard's share of the global batch's summed gradient, loss and tokens.
// The sums are exact, so how the batch was dealt out leaves no trace in them. Then it computes what it was given to audit, which
// enters no sum.
func (t *trainer) gradient(ctx context.Context, with company, p *coordpb.Plan, r *coordpb.Report) error {
	t.acc.Reset()
	t.work = work{}
	limit := allreduce.Limit(int(p.MicroBatches))
	n := len(t.grad)
	said := time.Now()
	for done, mb := range slices.Concat(p.Shard, p.Audit) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if done > 0 && time.Since(said) >= progressInterval {
			said = time.Now()
			if err := with.progress(p.Step, done); err != nil {
				return err
			}
		}
		c, err := t.contribution(p.Step, mb)
		summed := done < len(p.Shard)
		if err == nil && summed {
			err = t.acc.Add(0, c.grad, limit)
		}
		if err == nil && summed {
			err = t.acc.AddFloat64(n, c.loss, limit)
		}
		if err != nil {
			return t.blame(mb, limit, err)
		}
		if summed {
			if err := t.acc.AddInt(n+1, int64(c.tokens)); err != nil {
				return err
			}
		}
		if !summed || slices.Contains(p.Compare, mb.Index) {
			d := c.digest(mb.Index)
			r.Contributions = append(r.Contributions, &coordpb.Contribution{MicroBatch: mb.Index, Digest: d[:]})
		}
		if !c.kept {
			t.spare = c.grad // one of all weights is too large to be kept, and its memory to be had anew each time
		}
	}
	r.GradientNs, r.GradientCost = t.work.took.Nanoseconds(), t.work.cost
	return with.progress(p.Step, len(p.Shard)+len(p.Audit))
}

// contribution is what a micro-batch adds to step's sums, computed now or kept from an earlier generation.
func (t *trainer) contribution(step int64, mb *coordpb.MicroBatch) (*contribution, error) {
	key := partialKey{step, mb.Index, t.digest}
	if c := t.kept.get(key); c != nil {
		return c, nil
	}
	began := time.Now()
	c := new(contribution)
	var err error
	if c.loss, c.tokens, c.grad, err = t.microBatch(mb.Examples); err != nil {
		return nil, err
	}
	t.work.took += time.Since(began)
	for _, e := range mb.Examples {
		t.work.cost += int64(len(e.Source) + t.subject.rows() + len(e.Target))
	}
	t.kept.keep(key, c)
	return c, nil
}

func (t *trainer) microBatch(examples []*coordpb.Example) (loss float64, tokens int, grad []float32, err error) {
	into := t.spare
	t.spare = nil
	return t.subject.lossGrad(t.state.Params, pairsOf(examples), into)
}

// blame finds the example that makes a micro-batch fail, so that the error can name it. The numbers of an example
// are the same on any machine, so the job cannot go on elsewhere either.
func (t *trainer) blame(mb *coordpb.MicroBatch, limit float64, cause error) error {
	for _, e := range mb.Examples {
		loss, _, grad, err := t.microBatch([]*coordpb.Example{e})
		if err == nil {
			probe := allreduce.NewAccumulator(len(grad) + 1)
			if err = probe.Add(0, grad, limit); err == nil {
				err = probe.AddFloat64(len(grad), loss, limit)
			}
		}
		if err != nil {
			return &DataError{fmt.Errorf("example %s: %w", e.Id, err), mb.Index + 1}
		}
	}
	ids := make([]string, len(mb.Examples))
	for i, e := range mb.Examples {
		ids[i] = e.Id
	}
	return &DataError{fmt.Errorf("examples %v together: %w", ids, cause), mb.Index + 1}
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
	if e.MaxNewTokens < 0 || e.MaxNewTokens > maxNewTokens {
		return nil, fmt.Errorf("evaluation of step %d with outputs of %d tokens, want 0 to %d", e.Step, e.MaxNewTokens, maxNewTokens)
	}
	outputs, score, err := t.subject.evaluate(t.state.Params, pairsOf(e.Examples), int(e.MaxNewTokens))
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
