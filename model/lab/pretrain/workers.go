package pretrain

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/t5"
)

// workers compute steps together, each on an engine of its own.
type workers struct {
	settings Settings
	trainers []*t5.Trainer
	engines  []engine.Engine
	grads    [][]float32 // per micro-batch
	losses   [][]float64 // per worker
	sum      []float32
	pieces   []piece
}

// piece is a run of weights that the optimizer treats alike.
type piece struct {
	lo, hi int
	rate   float64 // factor of the learning rate
}

// pieces cuts all weights.
func pieces(s Settings) []piece {
	var list []piece
	for _, p := range s.Model.Parameters(s.Tied) {
		end := p.Offset + p.Size()
		for lo := p.Offset; lo < end; lo += rangeSize {
			list = append(list, piece{lo, min(end, lo+rangeSize), rate(s.Model, p)})
		}
	}
	return list
}

// newWorkers opens n engines; close ends them.
func newWorkers(s Settings, n int, open func() (engine.Engine, error), weights []float32) (_ *workers, err error) {
	w := &workers{settings: s, pieces: pieces(s), sum: make([]float32, len(weights)), losses: make([][]float64, n)}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	for range n {
		e, err := open()
		if err != nil {
			return nil, err
		}
		w.engines = append(w.engines, e)
		t, err := t5.NewTrainer(e, s.Model, s.Tied, weights)
		if err != nil {
			return nil, err
		}
		w.trainers = append(w.trainers, t)
	}
	for range s.Micro {
		w.grads = append(w.grads, make([]float32, len(weights)))
	}
	return w, nil
}

func (w *workers) close() error {
	var errs []error
	for _, e := range w.engines {
		errs = append(errs, e.Close())
	}
	return errors.Join(errs...)
}

// each runs f for 0 to n-1, each on some worker, and returns the first error.
func (w *workers) each(n int, f func(worker, i int) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, len(w.trainers))
	for worker := range min(n, len(w.trainers)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || errs[worker] != nil {
					return
				}
				errs[worker] = f(worker, i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// set passes the weights to all trainers.
func (w *workers) set(weights []float32) error {
	errs := make([]error, len(w.trainers))
	var wg sync.WaitGroup
	for i, t := range w.trainers {
		wg.Go(func() { errs[i] = t.Set(weights) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// gradient sets w.sum to the gradient of the mean token loss of b, and returns the sum of the
// losses.
func (w *workers) gradient(b batch) (loss float64, err error) {
	sums := make([]float64, len(b.micro))
	err = w.each(len(b.micro), func(worker, i int) error {
		pairs := b.micro[i]
		losses := append(w.losses[worker][:0], make([]float64, len(pairs))...)
		w.losses[worker] = losses
		if err := w.trainers[worker].LossGrad(pairs, losses, w.grads[i]); err != nil {
			return err
		}
		for _, l := range losses {
			sums[i] += l
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, l := range sums {
		loss += l
	}
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		return 0, fmt.Errorf("the loss is %v, want a finite number: training diverged", loss)
	}
	scale := float32(1 / float64(b.target))
	return loss, w.ranges(func(lo, hi int) error {
		sum := w.sum[lo:hi]
		copy(sum, w.grads[0][lo:hi])
		for _, g := range w.grads[1:] {
			for i, v := range g[lo:hi] {
				sum[i] += v
			}
		}
		for i := range sum {
			sum[i] *= scale
		}
		return nil
	})
}

// rangeSize is the number of weights in one part of the work on all of them.
const rangeSize = 1 << 16

// ranges runs f on all weights, a range at a time.
func (w *workers) ranges(f func(lo, hi int) error) error {
	n := len(w.sum)
	return w.each((n+rangeSize-1)/rangeSize, func(_, i int) error { return f(i*rangeSize, min(n, (i+1)*rangeSize)) })
}

// update takes AdamW's step on s with the gradient in w.sum.
func (w *workers) update(s *optim.State, factor float64) (norm float64, err error) {
	norm = optim.ClipGlobalNorm(w.sum, w.settings.Clip)
	err = w.each(len(w.pieces), func(_, i int) error {
		lo, hi := w.pieces[i].lo, w.pieces[i].hi
		part := optim.State{Step: s.Step, Params: s.Params[lo:hi], M: s.M[lo:hi], V: s.V[lo:hi]}
		if err := w.settings.Optimizer.Update(&part, w.sum[lo:hi], factor*w.pieces[i].rate); err != nil {
			return fmt.Errorf("weights from %d on: %w", lo, err)
		}
		return nil
	})
	s.Step++
	return norm, err
}
