//go:build onednn && cgo

package onednn

import (
	"sync"
	"sync/atomic"
)

// task is work cut into independent parts. do runs part i; worker, below the pool's size, tells which scratch memory is its own.
type task interface {
	do(i, worker int)
}

// pool runs the parts of one task at a time on a fixed set of goroutines, the caller's among them. Which worker runs which part is
// a race, so parts must not depend on it. Running allocates nothing.
type pool struct {
	workers int
	wake    chan int // carries a worker's number
	task    task
	parts   int64
	next    atomic.Int64
	busy    sync.WaitGroup
	exited  sync.WaitGroup
}

func newPool(workers int) *pool {
	p := &pool{workers: workers, wake: make(chan int, workers)}
	for range workers - 1 {
		p.exited.Go(func() {
			for w := range p.wake {
				p.drain(w)
				p.busy.Done()
			}
		})
	}
	return p
}

// run returns when all parts have run.
func (p *pool) run(parts int, t task) {
	helpers := min(p.workers, parts) - 1
	if helpers <= 0 {
		for i := range parts {
			t.do(i, 0)
		}
		return
	}
	p.task, p.parts = t, int64(parts)
	p.next.Store(0)
	p.busy.Add(helpers)
	for w := range helpers {
		p.wake <- w + 1
	}
	p.drain(0)
	p.busy.Wait()
	p.task = nil
}

func (p *pool) drain(worker int) {
	for {
		i := p.next.Add(1) - 1
		if i >= p.parts {
			return
		}
		p.task.do(int(i), worker)
	}
}

// close ends the goroutines and waits for them.
func (p *pool) close() {
	close(p.wake)
	p.exited.Wait()
}
