// Package pool runs parts of work on a fixed set of goroutines, for the engines that compute on
// CPUs.
package pool

import (
	"sync"
	"sync/atomic"
)

// Task is work cut into independent parts. Do runs part i; worker, a number below the pool's size,
// is no other running part's, so that it can choose scratch memory.
type Task interface {
	Do(i, worker int)
}

// Pool runs the parts of one task at a time on a fixed set of goroutines, the caller's among them.
// Which worker runs which part is a race, so parts must not depend on it. Running allocates
// nothing.
type Pool struct {
	workers int
	wake    chan int // carries a worker's number
	task    Task
	parts   int64
	next    atomic.Int64
	busy    sync.WaitGroup
	exited  sync.WaitGroup
}

// New starts a pool of the caller and workers-1 goroutines.
func New(workers int) *Pool {
	p := &Pool{workers: workers, wake: make(chan int, workers)}
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

// Workers is the number of goroutines that run parts, the caller of Run among them.
func (p *Pool) Workers() int { return p.workers }

// Run returns when all parts have run.
func (p *Pool) Run(parts int, t Task) {
	helpers := min(p.workers, parts) - 1
	if helpers <= 0 {
		for i := range parts {
			t.Do(i, 0)
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

func (p *Pool) drain(worker int) {
	for {
		i := p.next.Add(1) - 1
		if i >= p.parts {
			return
		}
		p.task.Do(int(i), worker)
	}
}

// Close ends the goroutines and waits for them.
func (p *Pool) Close() {
	close(p.wake)
	p.exited.Wait()
}
