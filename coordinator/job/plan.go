package job

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/tokenizer"
)

// planner decides what each step trains on. Step t's global batch and its micro-batches are a pure
// function of (data, settings, seed, t): the number of workers has no influence. One goroutine at a
// time uses it.
type planner struct {
	examples     []dataset.Example
	tokenizer    tokenizer.Tokenizer
	sampler      sampler
	maxSource    int // tokens
	maxTarget    int // tokens
	promptLength int // rows that the prompt adds to each source
}

// sampler chooses the examples of each step: a dataset.Sampler, or the dataset.Mixture of several
// tasks.
type sampler interface {
	StepsPerEpoch() int64
	Step(t int64) (epoch int64, micro [][]int) // t and epoch from 0
}

// StepPlan is one step's global batch.
type StepPlan struct {
	Epoch  int64 // from 1
	Micro  []*coordpb.MicroBatch
	Costs  []int      // rows of each micro-batch: source, prompt and target tokens
	Tokens int        // source and target tokens of the global batch, the prompt's not counted
	Digest ids.Digest // of the step, and of the ids and tokens of its examples by micro-batch
}

// plan is the plan of step t, from 1.
func (p *planner) plan(t ids.Step) *StepPlan {
	epoch, groups := p.sampler.Step(int64(t) - 1)
	plan := &StepPlan{Epoch: epoch + 1}
	h := sha256.New()
	var digested []byte // bytes that h has not got yet
	word := func(v int) { digested = binary.LittleEndian.AppendUint32(digested, uint32(v)) }
	word(int(t))
	for i, group := range groups {
		mb := &coordpb.MicroBatch{Index: int32(i)}
		cost := 0
		word(len(group))
		for _, at := range group {
			e := p.examples[at]
			x := &coordpb.Example{
				Id:     e.ID,
				Source: tokenizer.EncodeTruncated(p.tokenizer, e.Source, p.maxSource),
				Target: tokenizer.EncodeTruncated(p.tokenizer, e.Target, p.maxTarget),
			}
			mb.Examples = append(mb.Examples, x)
			rows := len(x.Source) + len(x.Target)
			plan.Tokens += rows
			cost += rows + p.promptLength

			// Every list is digested with its length in front, so that different plans are
			// different bytes.
			word(len(x.Id))
			digested = append(digested, x.Id...)
			for _, tokens := range [][]int32{x.Source, x.Target} {
				word(len(tokens))
				for _, id := range tokens {
					word(int(id))
				}
			}
		}
		h.Write(digested)
		digested = digested[:0]
		plan.Micro = append(plan.Micro, mb)
		plan.Costs = append(plan.Costs, cost)
	}
	h.Write(digested)
	plan.Digest = ids.Digest(h.Sum(nil))
	return plan
}

// IDs are the plan's example ids in the order of the batch.
func (p *StepPlan) IDs() []string {
	var ids []string
	for _, mb := range p.Micro {
		for _, e := range mb.Examples {
			ids = append(ids, e.Id)
		}
	}
	return ids
}
