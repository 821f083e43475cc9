package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dptune/dpt/allreduce"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/model"
)

// notingObjective is an objective of one parameter that notes how many micro-batches its calls
// have. A pair takes a millisecond. Its loss is its source's first token, and one of token 13
// fails.
type notingObjective struct {
	fakeObjective
	shares bool
	calls  []int
}

func (o *notingObjective) sharesPasses() bool { return o.shares }

func (o *notingObjective) lossGrads(_ []float32, microBatches [][]model.Pair, _ []float32) ([]*contribution, error) {
	o.calls = append(o.calls, len(microBatches))
	var list []*contribution
	for _, pairs := range microBatches {
		c := &contribution{grad: []float32{1}, tokens: len(pairs)}
		for _, p := range pairs {
			time.Sleep(time.Millisecond)
			if p.Source[0] == 13 {
				return nil, errors.New("unlucky")
			}
			c.loss += float64(p.Source[0])
		}
		list = append(list, c)
	}
	return list, nil
}

// planOf returns a plan of micro-batches of one example each: its name is its token.
func planOf(tokens ...int32) *coordpb.Plan {
	p := &coordpb.Plan{Step: 1, MicroBatches: int32(len(tokens))}
	for i, token := range tokens {
		p.Shard = append(p.Shard, &coordpb.MicroBatch{
			Index:    int32(i),
			Examples: []*coordpb.Example{{Id: fmt.Sprint(token), Source: []int32{token}, Target: []int32{1}}},
		})
	}
	return p
}

func TestCallsTakeSeveralMicroBatches(t *testing.T) {
	for _, c := range []struct {
		name   string
		shares bool
		tokens []int32
		cached []int // of the shard
		calls  []int
		bad    string
	}{
		{"the first call measures the speed", true, []int32{1, 2, 3, 4, 5}, nil, []int{1, 4}, ""},
		{"cached ones cost nothing", true, []int32{1, 2, 3, 4, 5}, []int{0, 2}, []int{1, 2}, ""},
		{"gradients that take much memory come alone", false, []int32{1, 2, 3}, nil, []int{1, 1, 1}, ""},
		// The example that fails is computed alone too, to name it.
		{"after a failure one by one", true, []int32{1, 2, 13, 4}, nil, []int{1, 3, 1, 1, 1}, "example 13: unlucky"},
		{"the first one fails", true, []int32{13, 2}, nil, []int{1, 1}, "example 13: unlucky"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &notingObjective{fakeObjective: 1, shares: c.shares}
				tr := newTestTrainer(1)
				tr.objective, tr.acc, tr.grad = o, allreduce.NewAccumulator(3), make([]float32, 1)
				p := planOf(c.tokens...)
				for _, i := range c.cached {
					if _, err := tr.compute(1, p.Shard[i:i+1]); err != nil {
						t.Fatal(err)
					}
				}
				o.calls, tr.speed = nil, 0
				done := -1
				io := stepIO{progress: func(_ int64, n int) error { done = n; return nil }}
				var r coordpb.Report
				err := tr.gradient(context.Background(), io, p, &r)
				if !slices.Equal(o.calls, c.calls) {
					t.Errorf("calls of %v micro-batches, want %v", o.calls, c.calls)
				}
				if c.bad != "" {
					var failed *dataError
					if !errors.As(err, &failed) || !strings.Contains(err.Error(), c.bad) ||
						failed.microBatch != int32(slices.Index(c.tokens, 13))+1 {
						t.Errorf("error %v, want one about micro-batch %d: %s", err, slices.Index(c.tokens, 13), c.bad)
					}
					return
				}
				if err != nil || done != len(c.tokens) {
					t.Errorf("%d micro-batches are done: %v", done, err)
				}
				var sum float64
				for _, token := range c.tokens {
					sum += float64(token)
				}
				if got := tr.acc.Float64(1); got != sum || tr.acc.Float64(0) != float64(len(c.tokens)) {
					t.Errorf("sums %v and %v, want %d and %v", tr.acc.Float64(0), got, len(c.tokens), sum)
				}
				if want := 2 * int64(len(c.tokens)-len(c.cached)); r.GradientCost != want {
					t.Errorf("%d rows, want %d: cached ones do not count", r.GradientCost, want)
				}
			})
		})
	}
}

func TestCallSize(t *testing.T) {
	p := planOf(slices.Repeat([]int32{1}, maxCallRows)...)
	for _, c := range []struct {
		speed float64 // rows a second; a micro-batch has 2
		want  int
	}{{0, 1}, {1, 1}, {9, 4}, {1e9, maxCallRows / 2}} {
		tr := newTestTrainer(1)
		tr.speed = c.speed
		if n := tr.callSize(1, p.Shard); n != c.want {
			t.Errorf("at %v rows a second a call has %d micro-batches, want %d", c.speed, n, c.want)
		}
	}
}
