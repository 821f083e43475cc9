package pool

import (
	"sync/atomic"
	"testing"
)

type count struct {
	runs    []atomic.Int32
	workers int
	bad     atomic.Int32
}

func (c *count) Do(i, worker int) {
	c.runs[i].Add(1)
	if worker < 0 || worker >= c.workers {
		c.bad.Add(1)
	}
}

// TestRun: every part runs exactly once, on a worker below the pool's size, for any number of
// workers and parts, and running allocates nothing.
func TestRun(t *testing.T) {
	for workers := 1; workers <= 4; workers++ {
		p := New(workers)
		for _, parts := range []int{0, 1, 2, 3, 7, 100} {
			c := &count{runs: make([]atomic.Int32, parts), workers: workers}
			p.Run(parts, c)
			for i := range c.runs {
				if n := c.runs[i].Load(); n != 1 {
					t.Errorf("%d workers, %d parts: part %d ran %d times", workers, parts, i, n)
				}
			}
			if c.bad.Load() != 0 {
				t.Errorf("%d workers: a worker's number is out of range", workers)
			}
			if n := testing.AllocsPerRun(10, func() { p.Run(parts, c) }); n != 0 {
				t.Errorf("%d workers, %d parts: %v allocations", workers, parts, n)
			}
		}
		p.Close()
	}
}
