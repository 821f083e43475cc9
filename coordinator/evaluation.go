package coordinator

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model/prompt"
)

const (
	// evalChunk is how many examples a worker decodes at a time.
	evalChunk = 16
	// evalAhead is how many chunks a worker holds, so that it need not wait for the next.
	evalAhead = 2
)

// evaluation is the evaluation of one committed state, under way. Chunks are dealt as workers come
// free; a chunk's outputs do not depend on who computes it, so an ended generation loses only the
// chunks that it had not returned.
type evaluation struct {
	step    ids.Step
	started time.Time
	queue   []int               // chunks to deal
	dealt   map[int]*dealtChunk // not returned yet
	outputs []*coordpb.Output   // by example; nil until its chunk is returned
	missing int                 // chunks not returned yet

	returned int           // chunks
	took     time.Duration // from dealing to returning, of all returned chunks
}

// dealtChunk is a chunk in the hands of workers.
type dealtChunk struct {
	by    *session
	since time.Time
	also  *session // who computes it too because by is late; nil if nobody
}

func newEvaluation(step ids.Step, examples int) *evaluation {
	e := &evaluation{
		step:    step,
		started: time.Now(),
		dealt:   map[int]*dealtChunk{},
		outputs: make([]*coordpb.Output, examples),
	}
	for i := 0; i*evalChunk < examples; i++ {
		e.queue = append(e.queue, i)
		e.missing++
	}
	return e
}

// bounds are the examples [from, to) of a chunk.
func (e *evaluation) bounds(chunk int) (from, to int) {
	return chunk * evalChunk, min((chunk+1)*evalChunk, len(e.outputs))
}

// abandon takes back what the ended generation was dealt.
func (e *evaluation) abandon() {
	e.queue = append(e.queue, slices.Sorted(maps.Keys(e.dealt))...)
	clear(e.dealt)
}

// evaluate deals chunks of the evaluation due after step to workers that have room.
func (c *controller) evaluate(step ids.Step) {
	if c.eval == nil {
		c.eval = newEvaluation(step, len(c.job.Eval))
		c.progress.Evaluating(step, len(c.job.Eval))
	}
	room := map[*session]int{}
	for _, s := range c.gen.ranks {
		room[s] = evalAhead
	}
	for _, d := range c.eval.dealt {
		room[d.by]--
		if d.also != nil {
			room[d.also]--
		}
	}
	for round := evalAhead; round > 0; round-- {
		for _, s := range c.gen.ranks {
			if len(c.eval.queue) == 0 {
				c.dealLateChunks(room)
				return
			}
			if room[s] < round {
				continue
			}
			room[s]--
			chunk := c.eval.queue[0]
			c.eval.queue = c.eval.queue[1:]
			c.eval.dealt[chunk] = &dealtChunk{by: s, since: time.Now()}
			c.sendChunk(s, chunk)
		}
	}
}

// dealLateChunks gives chunks that take far longer than others did to workers that have nothing to
// do. The first answer counts; they are all the same.
func (c *controller) dealLateChunks(room map[*session]int) {
	e := c.eval
	if e.returned == 0 {
		return
	}
	allowed := stragglerGrace + stragglerFactor*e.took/time.Duration(e.returned)
	for _, chunk := range slices.Sorted(maps.Keys(e.dealt)) {
		d := e.dealt[chunk]
		if d.also != nil || time.Since(d.since) < allowed {
			continue
		}
		for _, s := range c.gen.ranks {
			if room[s] == evalAhead {
				room[s]--
				d.also = s
				c.logger.Warn("evaluation chunk is late; another worker computes it too",
					"chunk", chunk, "late", d.by.id, "worker", s.id)
				c.sendChunk(s, chunk)
				break
			}
		}
	}
}

func (c *controller) sendChunk(s *session, chunk int) {
	from, to := c.eval.bounds(chunk)
	s.send(evaluateMessage(&coordpb.Evaluate{
		Generation:   uint64(c.gen.number),
		Step:         int64(c.eval.step),
		Chunk:        int32(chunk),
		MaxNewTokens: int32(c.job.Spec.MaxTargetLength),
		Examples:     c.job.EvalExamples(from, to),
	}))
}

// onEvaluation files a chunk's outputs and proposes the evaluation with the last.
func (c *controller) onEvaluation(s *session, r *coordpb.EvaluationReport) {
	if !c.isCurrent(r.Generation) {
		return
	}
	e := c.eval
	chunk := int(r.Chunk)
	if e == nil || ids.Step(r.Step) != e.step {
		return
	}
	from, to := e.bounds(chunk)
	if chunk >= 0 && from < len(e.outputs) && e.outputs[from] != nil {
		return // another worker was faster
	}
	d := e.dealt[chunk]
	if d == nil || d.by != s && d.also != s {
		s.close(codes.InvalidArgument, "%s returns evaluation chunk %d of step %d, which it does not hold",
			s, chunk, r.Step)
		return
	}
	if len(r.Outputs) != to-from {
		s.close(codes.InvalidArgument, "%s returns %d outputs for evaluation chunk %d, want %d",
			s, len(r.Outputs), chunk, to-from)
		return
	}
	copy(e.outputs[from:to], r.Outputs)
	e.took += time.Since(d.since)
	e.returned++
	delete(e.dealt, chunk)
	e.missing--
	c.progress.Evaluated(len(e.outputs)-min(e.missing*evalChunk, len(e.outputs)), len(e.outputs))
	if e.missing == 0 {
		c.proposeEvaluation(e)
	}
}

// proposeEvaluation scores the outputs and proposes the evaluation.
func (c *controller) proposeEvaluation(e *evaluation) {
	texts := make([]string, len(e.outputs))
	var loss float64
	var tokens int64
	for i, o := range e.outputs {
		texts[i] = c.job.Tokenizer.Decode(o.Tokens)
		loss += o.LossSum
		tokens += o.LossTokens
	}
	if tokens > 0 {
		loss /= float64(tokens)
	}
	split := c.job.Spec.EvalSplit
	metrics, score, err := c.job.Score(texts)
	if err != nil {
		c.failJob(e.step, fmt.Sprintf("evaluate step %d on %s: %v", e.step, split, err))
		return
	}
	data, err := json.Marshal(metrics)
	if err != nil {
		c.fail("evaluate step %d on %s: %w", e.step, split, err)
		return
	}
	entry := fsm.Evaluation{
		Step:     e.step,
		Split:    split,
		Loss:     loss,
		Metrics:  data,
		Score:    score,
		Examples: int64(len(e.outputs)),
		Seconds:  time.Since(e.started).Seconds(),
	}
	if c.job.Spec.Prompt().Probed() {
		if entry.Probe, err = c.probe(); err != nil {
			c.fail("evaluate step %d on %s: %w", e.step, split, err)
			return
		}
	}
	c.propose(&applied{entry: evaluationCommitted(entry)})
}

// probe looks at the rank of the committed state, which is the evaluated one: no step is under way
// past it.
func (c *controller) probe() ([]byte, error) {
	s := c.node.Status()
	params, err := c.blobs.Params(s.State, s.Blob, c.job.Spec.Parameters)
	if err != nil {
		return nil, err
	}
	p, err := prompt.ProbeOf(c.job.Spec.Prompt(), params)
	if err != nil {
		return nil, err
	}
	return json.Marshal(p)
}
