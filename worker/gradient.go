package worker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dptune/dpt/allreduce"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/model"
)

// A call of the objective takes as many micro-batches as it can compute in callTime, by its speed
// in the latest call, and at most maxCallRows rows. Small micro-batches take less time together.
// But a call is not interrupted, and the coordinator learns of its micro-batches only at its end:
// what a generation that fails has computed since the latest report may be computed again.
const (
	callTime    = time.Second
	maxCallRows = 4096
)

// gradientWork is how much of a step's gradient was computed, and how long that took. Contributions
// that were cached do not count.
type gradientWork struct {
	cost int64 // rows: source, prompt and target tokens
	took time.Duration
}

// progressInterval is the least time between two Progress messages about a shard, but for the last.
const progressInterval = 100 * time.Millisecond

// gradient fills the accumulator with the shard's share of the global batch's summed gradient, loss
// and tokens. The sums are exact, so how the batch is dealt out cannot change their bits. Then it
// computes the micro-batches to audit, which enter no sum.
func (t *trainer) gradient(ctx context.Context, io stepIO, p *coordpb.Plan, r *coordpb.Report) error {
	t.acc.Reset()
	t.work = gradientWork{}
	limit := allreduce.Limit(int(p.MicroBatches))
	reported := time.Now()
	work := slices.Concat(p.Shard, p.Audit)
	single := !t.objective.sharesPasses()
	for done := 0; done < len(work); {
		if err := ctx.Err(); err != nil {
			return err
		}
		if done > 0 && time.Since(reported) >= progressInterval {
			reported = time.Now()
			if err := io.progress(p.Step, done); err != nil {
				return err
			}
		}

		// Compute the next micro-batches. If that fails, go on one by one: the first ones may be
		// right, and the error is to name the one that is not.
		next := work[done : done+1]
		if !single {
			next = work[done : done+t.callSize(p.Step, work[done:])]
		}
		list, err := t.compute(p.Step, next)
		if err != nil && len(next) > 1 {
			single = true
			continue
		}
		if err != nil {
			return t.blameExample(next[0], limit, err)
		}
		for i, c := range list {
			if err := t.add(c, next[i], done+i < len(p.Shard), limit, p, r); err != nil {
				return err
			}
		}
		done += len(next)
	}
	r.GradientNs, r.GradientCost = t.work.took.Nanoseconds(), t.work.cost
	return io.progress(p.Step, len(work))
}

// add adds a micro-batch's contribution to the sums if it is summed, and to the report if another
// worker computes it too.
func (t *trainer) add(
	c *contribution, mb *coordpb.MicroBatch, summed bool, limit float64, p *coordpb.Plan, r *coordpb.Report,
) error {
	if summed {
		n := len(t.grad)
		err := t.acc.Add(0, c.grad, limit)
		if err == nil {
			err = t.acc.AddFloat64(n, c.loss, limit)
		}
		if err != nil {
			return t.blameExample(mb, limit, err)
		}
		if err := t.acc.AddInt(n+1, int64(c.tokens)); err != nil {
			return err
		}
	}
	if !summed || slices.Contains(p.Compare, mb.Index) {
		d := c.digest(mb.Index)
		r.Contributions = append(r.Contributions, &coordpb.Contribution{MicroBatch: mb.Index, Digest: d[:]})
	}
	if !c.cached {
		t.spareGrad = c.grad // a gradient of all weights is too large to cache, or to allocate each time
	}
	return nil
}

// callSize returns how many of the micro-batches, in their order, the next call takes: at least
// one. Cached ones cost nothing.
func (t *trainer) callSize(step int64, microBatches []*coordpb.MicroBatch) int {
	most := min(t.speed*callTime.Seconds(), maxCallRows)
	var rows int64
	for i, mb := range microBatches {
		if t.contributions.get(t.key(step, mb)) == nil {
			rows += t.cost(mb.Examples)
		}
		if i > 0 && float64(rows) > most {
			return i
		}
	}
	return len(microBatches)
}

// compute returns what micro-batches add to step's sums: from the cache, or computed now in one
// call.
func (t *trainer) compute(step int64, microBatches []*coordpb.MicroBatch) ([]*contribution, error) {
	list := make([]*contribution, len(microBatches))
	var missing []int
	var pairs [][]model.Pair
	var rows int64
	for i, mb := range microBatches {
		if list[i] = t.contributions.get(t.key(step, mb)); list[i] == nil {
			missing, pairs = append(missing, i), append(pairs, pairsOf(mb.Examples))
			rows += t.cost(mb.Examples)
		}
	}
	if len(missing) == 0 {
		return list, nil
	}
	began := time.Now()
	computed, err := t.lossGrads(pairs...)
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	t.work.took += took
	t.work.cost += rows
	t.speed = float64(rows) / max(took.Seconds(), 1e-9)
	for k, i := range missing {
		list[i] = computed[k]
		t.contributions.put(t.key(step, microBatches[i]), list[i])
	}
	return list, nil
}

// key is a micro-batch's in the cache, under the present state.
func (t *trainer) key(step int64, mb *coordpb.MicroBatch) contributionKey {
	return contributionKey{step, mb.Index, t.digest}
}

// cost counts the rows that examples take: those of source, prompt and target.
func (t *trainer) cost(examples []*coordpb.Example) (rows int64) {
	for _, e := range examples {
		rows += int64(len(e.Source) + t.objective.promptRows() + len(e.Target))
	}
	return rows
}

// lossGrads computes contributions, one of which may use spareGrad's memory.
func (t *trainer) lossGrads(microBatches ...[]model.Pair) ([]*contribution, error) {
	into := t.spareGrad
	t.spareGrad = nil
	return t.objective.lossGrads(t.state.Params, microBatches, into)
}

// blameExample finds the example that makes a micro-batch fail, so that the error can name it. The
// numbers of an example are the same on any machine, so the job cannot go on elsewhere either.
func (t *trainer) blameExample(mb *coordpb.MicroBatch, limit float64, cause error) error {
	for _, e := range mb.Examples {
		list, err := t.lossGrads(pairsOf([]*coordpb.Example{e}))
		if err == nil {
			c := list[0]
			probe := allreduce.NewAccumulator(len(c.grad) + 1)
			if err = probe.Add(0, c.grad, limit); err == nil {
				err = probe.AddFloat64(len(c.grad), c.loss, limit)
			}
		}
		if err != nil {
			return &dataError{fmt.Errorf("example %s: %w", e.Id, err), mb.Index + 1}
		}
	}
	ids := make([]string, len(mb.Examples))
	for i, e := range mb.Examples {
		ids[i] = e.Id
	}
	return &dataError{fmt.Errorf("examples %v together: %w", ids, cause), mb.Index + 1}
}
