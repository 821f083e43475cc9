package coordinator

import (
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/model/optim"
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
	step    fsm.Step
	started time.Time
	queue   []int            // chunks to deal
	held    map[int]*session // dealt, not returned
	outputs []*coordpb.Output
	missing int
}

// abandon takes back what the ended generation held.
func (e *evaluation) abandon() {
	for chunk := range e.held {
		e.queue = append(e.queue, chunk)
	}
	clear(e.held)
}

// evaluate deals chunks of the evaluation due after step to workers that have room.
func (c *controller) evaluate(step fsm.Step) {
	n := len(c.job.Eval)
	if c.eval == nil {
		c.eval = &evaluation{step: step, started: time.Now(), held: map[int]*session{}, outputs: make([]*coordpb.Output, n)}
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
	for _, s := range c.eval.held {
		room[s]--
	}
	for round := evalAhead; round > 0; round-- {
		for _, s := range c.gen.ranks {
			if len(c.eval.queue) == 0 {
				return
			}
			if room[s] < round {
				continue
			}
			room[s]--
			chunk := c.eval.queue[0]
			c.eval.queue = c.eval.queue[1:]
			c.eval.held[chunk] = s
			s.send(&coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Evaluate{Evaluate: &coordpb.Evaluate{
				Generation: uint64(c.gen.number), Step: int64(step), Chunk: int32(chunk), MaxNewTokens: int32(c.job.Spec.MaxTargetLength),
				Examples: c.job.EvalExamples(chunk*evalChunk, min((chunk+1)*evalChunk, n)),
			}}})
		}
	}
}

// onEvaluation files a chunk's outputs and commits the evaluation with the last.
func (c *controller) onEvaluation(s *session, r *coordpb.EvaluationReport) {
	if c.gen == nil || uint64(c.gen.number) != r.Generation {
		return
	}
	e := c.eval
	chunk := int(r.Chunk)
	if e == nil || fsm.Step(r.Step) != e.step || e.held[chunk] != s {
		s.close(codes.InvalidArgument, "%s returns evaluation chunk %d of step %d, which it does not hold", s, chunk, r.Step)
		return
	}
	from, to := chunk*evalChunk, min((chunk+1)*evalChunk, len(e.outputs))
	if len(r.Outputs) != to-from {
		s.close(codes.InvalidArgument, "%s returns %d outputs for evaluation chunk %d, want %d", s, len(r.Outputs), chunk, to-from)
		return
	}
	copy(e.outputs[from:to], r.Outputs)
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
	c.node.view(func(m *fsm.Machine) { data = m.State() })
	var s optim.State
	if err := s.UnmarshalBinary(data); err != nil {
		return nil, err
	}
	p, err := prompt.ProbeOf(c.job.Spec.Prompt(), s.Params)
	if err != nil {
		return nil, err
	}
	return json.Marshal(p)
}

func (c *controller) onEvaluated() {
	c.eval = nil
	c.lastStep = time.Now()
}
