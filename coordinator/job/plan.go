package job

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/tokenizer"
)

// Planner says what each step trains on. Step t's global batch and its micro-batches are a pure
// function of (data, settings, seed, t): never of how many workers there are. It is used from one
// goroutine.
type Planner struct {
	Examples     []dataset.Example
	Tokenizer    tokenizer.Tokenizer
	Sampler      Sampler
	MaxSource    int
	MaxTarget    int
	PromptLength int // rows that the prompt adds to each source
}

// Sampler chooses the examples of each step: a dataset.Sampler, or the dataset.Mixture of several
// tasks.
type Sampler interface {
	StepsPerEpoch() int64
	Step(t int64) (epoch int64, micro [][]int)
}

// StepPlan is one step's global batch.
type StepPlan struct {
	Step   ids.Step
	Epoch  int64 // from 1
	Micro  []*coordpb.MicroBatch
	Costs  []int // rows of each micro-batch: source, prompt and target tokens
	Tokens int   // source and target tokens of the global batch, the prompt's not counted
	Digest ids.Digest
}

// Plan is the plan of step t, from 1.
func (p *Planner) Plan(t ids.Step) *StepPlan {
	epoch, groups := p.Sampler.Step(int64(t) - 1)
	plan := &StepPlan{Step: t, Epoch: epoch + 1}
	h := sha256.New()
	var digested []byte // on its way into h
	word := func(v int) { digested = binary.LittleEndian.AppendUint32(digested, uint32(v)) }
	word(int(t))
	for i, group := range groups {
		mb := &coordpb.MicroBatch{Index: int32(i)}
		cost := 0
		word(len(group))
		for _, at := range group {
			e := p.Examples[at]
			x := &coordpb.Example{
				Id:     e.ID,
				Source: tokenizer.EncodeTruncated(p.Tokenizer, e.Source, p.MaxSource),
				Target: tokenizer.EncodeTruncated(p.Tokenizer, e.Target, p.MaxTarget),
			}
			mb.Examples = append(mb.Examples, x)
			rows := len(x.Source) + len(x.Target)
			plan.Tokens += rows
			cost += rows + p.PromptLength
			word(len(x.Id))
			digested = append(digested, x.Id...)
			for _, ids := range [][]int32{x.Source, x.Target} {
				word(len(ids))
				for _, id := range ids {
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
