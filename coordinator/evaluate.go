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
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model/prompt"
)

const (
	// evalChunk is how many examples a worker decodes at a time.
	evalChunk = 16
	// evalAhead is how many chunks a worker holds, so that it need not wait for the next.
	evalAhead = 2
)

// evaluation is the evaluation of one committed state, under way. Chunks are dealt as workers come free; a chunk's
// outputs do not depend on who computes it, so an ended generation loses only the chunks it had not returned.
type evaluation struct {
	step    ids.Step
	started time.Time
	queue   []int            // chunks to deal
	held    map[int]*holding // dealt, not returned
	took    time.Duration    // from dealing to returning, of all that were returned
	back    int              // how many
	outputs []*coordpb.Output
	missing int
}

// holding is who has a chunk.
type holding struct {
	by    *session
	since time.Time
	also  *session // who was given it because by is late; nil if nobody
}

// abandon takes back what the ended generation held.
func (e *evaluation) abandon() {
	for chunk := range e.held {
		e.queue = append(e.queue, chunk)
	}
	clear(e.held)
}

// evaluate deals chunks of the evaluation due after step to workers that have room.
func (c *controller) evaluate(step ids.Step) {
	n := len(c.job.Eval)
	if c.eval == nil {
		c.eval = &evaluation{step: step, started: time.Now(), held: map[int]*holding{}, outputs: make([]*coordpb.Output, n)}
		for i := 0; i*evalChunk < n; i++ {
			c.eval.queue = append(c.eval.queue, i)
			c.eval.missing++
		}
		c.progress.Evaluating(step, n)
	}
	room := map[*session]int{}
	for _, s := range c.gen.ranks {
		room[s] = evalAhead
	}
	for _, h := range c.eval.held {
		room[h.by]--
		if h.also != nil {
			room[h.also]--
		}
	}
	for round := evalAhead; round > 0; round-- {
		for _, s := range c.gen.ranks {
			if len(c.eval.queue) == 0 {
				c.takeOver(room)
				return
			}
			if room[s] < round {
				continue
			}
			room[s]--
			chunk := c.eval.queue[0]
			c.eval.queue = c.eval.queue[1:]
			c.eval.held[chunk] = &holding{by: s, since: time.Now()}
			c.sendChunk(s, chunk)
		}
	}
}

// takeOver gives chunks that take far longer than others did to workers that have nothing to do. The first answer counts; they
// are all the same.
func (c *controller) takeOver(room map[*session]int) {
	e := c.eval
	if e.back == 0 {
		return
	}
	allowed := lateFloor + lateFactor*e.took/time.Duration(e.back)
	for _, chunk := range slices.Sorted(maps.Keys(e.held)) {
		h := e.held[chunk]
		if h.also != nil || time.Since(h.since) < allowed {
			continue
		}
		for _, s := range c.gen.ranks {
			if room[s] == evalAhead {
				room[s]--
				h.also = s
				c.logger.Warn("evaluation chunk is late; another worker computes it too", "chunk", chunk, "late", h.by.id, "worker", s.id)
				c.sendChunk(s, chunk)
				break
			}
		}
	}
}

func (c *controller) sendChunk(s *session, chunk int) {
	s.send(&coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Evaluate{Evaluate: &coordpb.Evaluate{
		Generation: uint64(c.gen.number), Step: int64(c.eval.step), Chunk: int32(chunk), MaxNewTokens: int32(c.job.Spec.MaxTargetLength),
		Examples: c.job.EvalExamples(chunk*evalChunk, min((chunk+1)*evalChunk, len(c.eval.outputs))),
	}}})
}

// onEvaluation files a chunk's outputs and commits the evaluation with the last.
func (c *controller) onEvaluation(s *session, r *coordpb.EvaluationReport) {
	if c.gen == nil || uint64(c.gen.number) != r.Generation {
		return
	}
	e := c.eval
	chunk := int(r.Chunk)
	if e == nil || ids.Step(r.Step) != e.step || chunk >= 0 && chunk*evalChunk < len(e.outputs) && e.outputs[chunk*evalChunk] != nil {
		return // another worker was faster
	}
	h := e.held[chunk]
	if h == nil || h.by != s && h.also != s {
		s.close(codes.InvalidArgument, "%s returns evaluation chunk %d of step %d, which it does not hold", s, chunk, r.Step)
		return
	}
	from, to := chunk*evalChunk, min((chunk+1)*evalChunk, len(e.outputs))
	if len(r.Outputs) != to-from {
		s.close(codes.InvalidArgument, "%s returns %d outputs for evaluation chunk %d, want %d", s, len(r.Outputs), chunk, to-from)
		return
	}
	copy(e.outputs[from:to], r.Outputs)
	e.took += time.Since(h.since)
	e.back++
	delete(e.held, chunk)
	e.missing--
	c.progress.Evaluated(len(e.outputs)-min(e.missing*evalChunk, len(e.outputs)), len(e.outputs))
	if e.missing == 0 {
		c.commitEvaluation(e)
	}
}

func (c *controller) commitEvaluation(e *evaluation) {
	texts := make([]string, len(e.outputs))
	var loss float64
	var tokens int64
	for i, o := range e.outputs {
		texts[i] = c.job.Tokenizer.Decode(o.Tokens)
		loss += o.LossSum
		tokens += o.LossTokens
	}
	metrics, score, err := c.job.Score(texts)
	if err != nil {
		c.failJob(e.step, fmt.Sprintf("evaluate step %d on %s: %v", e.step, c.job.Spec.EvalSplit, err))
		return
	}
	data, err := json.Marshal(metrics)
	if err != nil {
		c.fail("evaluate step %d on %s: %w", e.step, c.job.Spec.EvalSplit, err)
		return
	}
	if tokens > 0 {
		loss /= float64(tokens)
	}
	entry := fsm.Evaluation{Step: e.step, Split: c.job.Spec.EvalSplit, Loss: loss, Metrics: data, Score: score,
		Examples: int64(len(e.outputs)), Seconds: time.Since(e.started).Seconds()}
	if c.job.Spec.Method == "svd" {
		if entry.Probe, err = c.probe(); err != nil {
			c.fail("evaluate step %d on %s: %w", e.step, c.job.Spec.EvalSplit, err)
			return
		}
	}
	c.propose(&applied{entry: &fsmpb.Entry{Body: &fsmpb.Entry_EvaluationCommitted{EvaluationCommitted: entry.Proto()}}})
}

// probe looks at the rank of the committed state, which is the evaluated one: no step is under way past it.
func (c *controller) probe() ([]byte, error) {
	var data []byte
	var blob ids.Blob
	c.node.view(func(m *fsm.Machine) { data, blob = m.State(), m.Blob() })
	params, err := c.states.params(data, blob, c.job.Spec.Parameters)
	if err != nil {
		return nil, err
	}
	p, err := prompt.ProbeOf(c.job.Spec.Prompt(), params)
	if err != nil {
		return nil, err
	}
	return json.Marshal(p)
}

func (c *controller) onEvaluated() {
	c.eval = nil
	c.lastStep = time.Now()
}
