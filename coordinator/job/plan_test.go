package job

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/tokenizer"
)

func testPlanner(t *testing.T, n, batch, micro int, seed uint64) *planner {
	t.Helper()
	sampler, err := dataset.NewSampler(n, batch, micro, seed)
	if err != nil {
		t.Fatal(err)
	}
	p := &planner{
		tokenizer:    tokenizer.NewByteLevel(125),
		sampler:      sampler,
		maxSource:    12,
		maxTarget:    4,
		promptLength: 5,
	}
	for i := range n {
		p.examples = append(p.examples, dataset.Example{ID: fmt.Sprint(i), Source: strings.Repeat("x", i), Target: "1"})
	}
	return p
}

func TestPlanIsPureAndCoversEachEpochOnce(t *testing.T) {
	const n, batch, micro = 11, 4, 3
	a, b := testPlanner(t, n, batch, micro, 7), testPlanner(t, n, batch, micro, 7)
	for epoch := range int64(3) {
		seen := map[string]int{}
		for i := range int64(3) {
			step := ids.Step(epoch*3 + i + 1)
			p := a.plan(step)
			if p.Epoch != epoch+1 {
				t.Errorf("step %d is in epoch %d, want %d", step, p.Epoch, epoch+1)
			}
			for m, mb := range p.Micro {
				cost := 0
				for _, e := range mb.Examples {
					seen[e.Id]++
					if last := e.Source[len(e.Source)-1]; len(e.Source) > 12 || last != 1 {
						t.Errorf("example %s has %d source ids ending in %d, want at most 12 ending in </s>",
							e.Id, len(e.Source), last)
					}
					cost += len(e.Source) + 5 + len(e.Target)
				}
				if len(mb.Examples) > micro || p.Costs[m] != cost {
					t.Errorf("micro-batch of %d examples, cost %d, want %d", len(mb.Examples), p.Costs[m], cost)
				}
			}
			// Asked out of order, from another planner, the plan is the same.
			b.plan(1)
			if q := b.plan(step); q.Digest != p.Digest || !reflect.DeepEqual(q.IDs(), p.IDs()) {
				t.Errorf("step %d: two planners of one seed differ", step)
			}
		}
		for id, times := range seen {
			if times != 1 {
				t.Errorf("epoch %d: example %s comes %d times", epoch, id, times)
			}
		}
		if len(seen) != n {
			t.Errorf("epoch %d: %d of %d examples", epoch, len(seen), n)
		}
	}
	if testPlanner(t, n, batch, micro, 8).plan(1).Digest == a.plan(1).Digest {
		t.Error("another seed gives the same batch")
	}
}
