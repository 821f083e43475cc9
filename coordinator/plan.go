package coordinator

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/tokenizer"
)

// Planner says what each step trains on. Step t's global batch and its micro-batches are a pure function of
// (data, settings, seed, t): never of how many workers there are. It is used from one goroutine.
type Planner struct {
	examples  []dataset.Example
	tok       tokenizer.Tokenizer
	sampler   *dataset.Sampler
	maxSource int
	maxTarget int
	prompt    int // rows that the prompt adds to each source
}

// StepPlan is one step's global batch.
type StepPlan struct {
	Step   fsm.Step
	Epoch  int64 // from 1
	Micro  []*coordpb.MicroBatch
	Costs  []int // rows of each micro-batch: source, prompt and target tokens
	Tokens int   // source and target tokens of the global batch, the prompt's not counted
	Digest fsm.Digest
}

// Plan is the plan of step t, from 1.
func (p *Planner) Plan(t fsm.Step) *StepPlan {
	epoch, groups := p.sampler.Step(int64(t) - 1)
	plan := &StepPlan{Step: t, Epoch: epoch + 1}
	h := sha256.New()
	word := func(v int) { h.Write(binary.LittleEndian.AppendUint32(nil, uint32(v))) }
	word(int(t))
	for i, group := range groups {
		mb := &coordpb.MicroBatch{Index: int32(i)}
		cost := 0
		word(len(group))
		for _, at := range group {
			e := p.examples[at]
			x := &coordpb.Example{
				Id:     e.ID,
				Source: tokenizer.EncodeTruncated(p.tok, e.Source, p.maxSource),
				Target: tokenizer.EncodeTruncated(p.tok, e.Target, p.maxTarget),
			}
			mb.Examples = append(mb.Examples, x)
			rows := len(x.Source) + len(x.Target)
			plan.Tokens += rows
			cost += rows + p.prompt
			word(len(x.Id))
			h.Write([]byte(x.Id))
			for _, ids := range [][]int32{x.Source, x.Target} {
				word(len(ids))
				for _, id := range ids {
					word(int(id))
				}
			}
		}
		plan.Micro = append(plan.Micro, mb)
		plan.Costs = append(plan.Costs, cost)
	}
	plan.Digest = fsm.Digest(h.Sum(nil))
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

// Assign deals micro-batches to ranks so that all end at about the same time: costs[i] is the work in micro-batch i,
// speeds[r] the work a unit of time that rank r does. The longest go first, each to the rank that would finish it
// earliest, the lowest rank on a tie. The answer lists each rank's micro-batches in ascending order. Who computes
// what has no influence on the result, only on its time.
func Assign(costs []int, speeds []float64) ([][]int, error) {
	if len(speeds) == 0 {
		return nil, fmt.Errorf("assign %d micro-batches: no ranks", len(costs))
	}
	for r, v := range speeds {
		if !(v > 0) {
			return nil, fmt.Errorf("assign %d micro-batches: rank %d has speed %v, want a positive one", len(costs), r, v)
		}
	}
	order := make([]int, len(costs))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return costs[order[a]] > costs[order[b]] })
	out := make([][]int, len(speeds))
	load := make([]float64, len(speeds))
	for _, i := range order {
		best, end := 0, (load[0]+float64(costs[i]))/speeds[0]
		for r := 1; r < len(speeds); r++ {
			if e := (load[r] + float64(costs[i])) / speeds[r]; e < end {
				best, end = r, e
			}
		}
		load[best] += float64(costs[i])
		out[best] = append(out[best], i)
	}
	for _, list := range out {
		slices.Sort(list)
	}
	return out, nil
}
