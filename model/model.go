// Package model computes a training step of a soft prompt against a frozen backbone: from token ids
// and a prompt to losses, the prompt's gradient, or generated ids. It chooses the engine, bounds
// memory, and turns what is not a number into an error that names the example.
package model

import (
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"time"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/t5"
	"github.com/dptune/dpt/model/tiny"
)

// Pair is one example: token ids of the source and of the target, both ending with </s>.
type Pair = t5.Pair

// Options of Open. The zero value is the best device with all CPUs.
type Options struct {
	Device  Device
	Engine  string // one of Engines; "" or "auto" is the best of the build that works here
	DType   string // one of DTypes, the type of operands of products; "" or "auto" is f32
	Threads int    // CPU threads; 0 means one per CPU. Results do not depend on it.

	// MaxMemory is about the most bytes that a call keeps in memory beside the weights; 0 means
	// DefaultMaxMemory. A call that needs more runs in several passes, each of at least one
	// example. Results do not depend on it.
	MaxMemory int64

	// For measurements: these switch savings off. Results are the same but for rounding.
	DisableAbsorption bool // of cross-attention of short targets without projecting the encoder's output
	DisableFirstLayer bool // of parts of the first encoder layer: see t5.Options.NoFirstLayer
	DisablePacking    bool // of weights in the layout that the engine's products prefer
	PadTargets        bool // compute as many logits for every target of a pass as for the longest

	// TrainWeights, for measurements, makes LossGrad compute the gradient of all weights too, and
	// drop it. It excludes absorption, the first layer's savings and MaxMemory.
	TrainWeights bool
	// Wrap, if set, takes the engine and returns the one that the model computes on.
	Wrap func(engine.Engine) engine.Engine
}

// DefaultMaxMemory is 1 GiB.
const DefaultMaxMemory = 1 << 30

// t5 returns the options of t5.New. These count numbers, of 4 bytes each unless an engine stores
// some in fewer.
func (o Options) t5() (t5.Options, error) {
	if o.MaxMemory < 0 {
		return t5.Options{}, fmt.Errorf("at most %d bytes of memory, want 0 (the default) or more", o.MaxMemory)
	}
	bytes := o.MaxMemory
	if bytes == 0 {
		bytes = DefaultMaxMemory
	}
	return t5.Options{
		MaxElems:     int(max(bytes/4, 1)),
		NoAbsorption: o.DisableAbsorption,
		NoFirstLayer: o.DisableFirstLayer,
		PadTargets:   o.PadTargets,
	}, nil
}

// Result of a batch of pairs. Losses are sums over target tokens; a mean token loss as Transformers
// defines it is Loss / Tokens.
type Result struct {
	Loss   float64   // sum over all pairs
	Tokens int       // target tokens of all pairs
	Losses []float64 // per pair
	Counts []int     // target tokens per pair
}

// Backbone is a frozen encoder-decoder on an engine. One goroutine at a time may use it: its memory
// is reused from call to call.
//
// Prompts are c×Dim row-major, one row per virtual token in front of the source; nil or empty
// means none. A call's results depend only on its arguments and on the engine's build.
type Backbone struct {
	name    string
	digest  [32]byte
	loading Loading
	why     string // reason for the choice of the engine, in parentheses, or ""
	eng     engine.Engine
	t5      *t5.Model
	trainer *t5.Trainer // with Options.TrainWeights

	// Of the latest LossGrads: its pairs, how many each micro-batch has, and the gradients. The
	// memory is reused.
	pairs []Pair
	sizes []int
	grads []float64

	opt  Options
	tied bool          // the output projection is the embedding table
	full *fullTraining // nil before the first call that takes weights
}

// Loading is the time that the parts of Open took. Digest and packing run at the same time.
type Loading struct {
	Mapping time.Duration // opening the files and reading their headers
	Digest  time.Duration // of all weights
	Packing time.Duration // opening the engine and packing weights for it
	Whole   time.Duration
}

// Open loads the model in dir, as Transformers' save_pretrained writes it; "" is the embedded tiny
// model.
func Open(dir string, opt Options) (*Backbone, error) {
	began := time.Now()
	ckpt, err := tiny.OpenModel(dir)
	if err != nil {
		return nil, err
	}
	mapped := time.Since(began)
	b, err := load(ckpt, opt)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open model %s: %w", ckpt.Name(), err), ckpt.Close())
	}
	if err := ckpt.Close(); err != nil { // the engine has its own copy by now
		return nil, errors.Join(fmt.Errorf("open model %s: %w", ckpt.Name(), err), b.Close())
	}
	b.loading.Mapping, b.loading.Whole = mapped, time.Since(began)
	return b, nil
}

// load packs weights and computes their digest at the same time, since each at times leaves cores
// idle.
func load(ckpt *checkpoint.Model, opt Options) (*Backbone, error) {
	cfg, err := t5.ParseConfig(ckpt.Config())
	if err != nil {
		return nil, err
	}
	if err := t5.CheckNames(cfg, ckpt.Names()); err != nil {
		return nil, err
	}
	if settings := ckpt.Generation(); settings != nil {
		if err := t5.CheckGeneration(cfg, settings); err != nil {
			return nil, err
		}
	}
	var digest [32]byte
	var failed error
	var digesting time.Duration
	var wg sync.WaitGroup
	wg.Go(func() {
		began := time.Now()
		digest, failed = ckpt.Digest()
		digesting = time.Since(began)
	})
	began := time.Now()
	b, err := newBackbone(ckpt.Name(), cfg, ckpt, opt)
	packing := time.Since(began)
	wg.Wait()
	if err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, errors.Join(failed, b.Close())
	}
	b.digest, b.loading = digest, Loading{Digest: digesting, Packing: packing}
	return b, nil
}

// loadGCPercent is the garbage collector's pace while weights are loaded.
const loadGCPercent = 10

// newBackbone loads w into a new engine. The caller sets the digest.
func newBackbone(name string, cfg t5.Config, w t5.Weights, opt Options) (*Backbone, error) {
	options, err := opt.t5()
	if err != nil {
		return nil, err
	}
	eng, why, err := newEngine(opt)
	if err != nil {
		return nil, err
	}
	if opt.Wrap != nil {
		eng = opt.Wrap(eng)
	}
	// Tensors that are converted on their way to the engine become garbage at once. Collected at
	// the usual pace, they would leave a heap of the model's size, which the kernel's huge pages
	// keep resident after it is freed.
	defer debug.FreeOSMemory()
	defer debug.SetGCPercent(debug.SetGCPercent(loadGCPercent))
	b := &Backbone{name: name, why: why, eng: eng, opt: opt, tied: t5.Tied(w)}
	if opt.TrainWeights {
		err = b.openTrainer(cfg, w)
	} else {
		b.t5, err = t5.New(eng, cfg, w, options)
	}
	if err != nil {
		eng.Close()
		return nil, err
	}
	return b, nil
}

// openTrainer loads w into an engine that also computes gradients of weights.
func (b *Backbone) openTrainer(cfg t5.Config, w t5.Weights) error {
	all, err := t5.ReadAll(cfg, w)
	if err != nil {
		return err
	}
	if b.trainer, err = t5.NewTrainer(b.eng, cfg, b.tied, all); err != nil {
		return err
	}
	b.t5 = b.trainer.Model()
	return nil
}

// lossGrads is t5.Model.LossGrads, which trains weights only one micro-batch at a time.
func (b *Backbone) lossGrads(prompt []float32, pairs []Pair, sizes []int, losses, grads []float64) error {
	if b.trainer == nil {
		return b.t5.LossGrads(prompt, pairs, sizes, losses, grads)
	}
	for _, n := range sizes {
		if err := b.trainer.PromptLossGrad(prompt, pairs[:n], losses[:n], grads[:len(prompt)]); err != nil {
			return err
		}
		pairs, losses, grads = pairs[n:], losses[n:], grads[len(prompt):]
	}
	return nil
}

// Dim is the size of an embedding and so of a prompt row.
func (b *Backbone) Dim() int { return b.t5.Config().DModel }

// VocabSize bounds token ids: they are in [0, VocabSize).
func (b *Backbone) VocabSize() int { return b.t5.Config().VocabSize }

// Name is the directory that the model came from, or tiny.Name, the embedded model's.
func (b *Backbone) Name() string { return b.name }

// StepFLOPs counts what LossGrad of pairs behind a prompt of c rows multiplies and adds by the
// standard algorithm: see t5.Config.StepFLOPs.
func (b *Backbone) StepFLOPs(c int, pairs []Pair) float64 { return b.t5.Config().StepFLOPs(c, pairs) }

// EngineName is the name of the engine and, if the options do not name it, the reason for its
// choice.
func (b *Backbone) EngineName() string { return b.eng.Name() + b.why }

// Numerics identifies what decides the bits of results: backbones of equal Digest and Numerics, in
// programs built alike, give the same bits for the same calls.
func (b *Backbone) Numerics() string { return b.eng.Numerics() }

// Digest identifies architecture and weights, however they are spread over files.
func (b *Backbone) Digest() [32]byte { return b.digest }

// Loading returns the time that the parts of Open took.
func (b *Backbone) Loading() Loading { return b.loading }

// Close frees the engine. The Backbone is not used afterwards.
func (b *Backbone) Close() error { return errors.Join(b.full.close(), b.eng.Close()) }

// LossGrad returns the losses of pairs and the gradient of their sum with respect to prompt, of its
// shape. An invalid pair, or one whose loss or gradient is not finite, is an error that names its
// index.
func (b *Backbone) LossGrad(prompt []float32, pairs []Pair) (Result, []float32, error) {
	results, grads, err := b.LossGrads(prompt, [][]Pair{pairs})
	if err != nil {
		var failed *MicroBatchError
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return Result{}, nil, err
	}
	return results[0], grads[0], nil
}

// MicroBatchError is the failure of one of the micro-batches of LossGrads.
type MicroBatchError struct {
	Index int // of the micro-batch in the call
	Err   error
}

func (e *MicroBatchError) Error() string { return fmt.Sprintf("micro-batch %d: %v", e.Index, e.Err) }
func (e *MicroBatchError) Unwrap() error { return e.Err }

// LossGrads is LossGrad for several micro-batches behind one prompt: it returns a result and a
// gradient for each, of the same bits as LossGrad of it alone. Together, small micro-batches take
// less time. An invalid or failing pair is a *MicroBatchError, and there are no results.
func (b *Backbone) LossGrads(prompt []float32, microBatches [][]Pair) ([]Result, [][]float32, error) {
	if err := checkFinite(prompt); err != nil {
		return nil, nil, err
	}
	if err := b.t5.Check(prompt, nil); err != nil {
		return nil, nil, err
	}
	b.pairs, b.sizes = b.pairs[:0], b.sizes[:0]
	for i, pairs := range microBatches {
		if err := b.t5.Check(prompt, pairs); err != nil {
			return nil, nil, &MicroBatchError{i, err}
		}
		b.pairs, b.sizes = append(b.pairs, pairs...), append(b.sizes, len(pairs))
	}
	n := len(prompt)
	if cap(b.grads) < n*len(microBatches) {
		b.grads = make([]float64, n*len(microBatches))
	}
	sums := b.grads[:n*len(microBatches)]
	clear(sums)
	all := newResult(b.pairs)
	if err := b.lossGrads(prompt, b.pairs, b.sizes, all.Losses, sums); err != nil {
		return nil, nil, err
	}

	// Cut the results into those of the micro-batches, and check them.
	results, grads := make([]Result, len(microBatches)), make([][]float32, len(microBatches))
	first := 0
	for i, pairs := range microBatches {
		end := first + len(pairs)
		results[i] = Result{Losses: all.Losses[first:end:end], Counts: all.Counts[first:end:end]}
		results[i].sum()
		grads[i] = make([]float32, n)
		if !finite(results[i].Losses) || !toFloat32(grads[i], sums[i*n:(i+1)*n]) {
			return nil, nil, &MicroBatchError{i, b.nonFinitePair(prompt, pairs)}
		}
		first = end
	}
	return results, grads, nil
}

// toFloat32 rounds src into dst and reports whether all numbers are finite there.
func toFloat32(dst []float32, src []float64) bool {
	for i, v := range src {
		dst[i] = float32(v)
		if !isFinite(float64(dst[i])) {
			return false
		}
	}
	return true
}

// Score returns the losses of pairs.
func (b *Backbone) Score(prompt []float32, pairs []Pair) (Result, error) {
	res, err := b.begin(prompt, pairs)
	if err != nil {
		return Result{}, err
	}
	if err := b.t5.Score(prompt, pairs, res.Losses); err != nil {
		return Result{}, err
	}
	if err := res.finish(); err != nil {
		return Result{}, err
	}
	return res, nil
}

// Logits returns each pair's logits, [target length × VocabSize] row-major, given its target as
// the decoder's input.
func (b *Backbone) Logits(prompt []float32, pairs []Pair) ([][]float32, error) {
	if _, err := b.begin(prompt, pairs); err != nil {
		return nil, err
	}
	return b.t5.Logits(prompt, pairs)
}

// Generate decodes greedily, for each source at most maxNew ids, the end-of-sequence id left out. A
// source's result does not depend on its neighbours in the call.
func (b *Backbone) Generate(prompt []float32, sources [][]int32, maxNew int) ([][]int32, error) {
	if err := checkFinite(prompt); err != nil {
		return nil, err
	}
	return b.t5.Generate(prompt, sources, maxNew)
}

// Evaluate is Generate for the sources of pairs and Score for their targets with one pass through
// the encoder. A pair with an empty target has no loss: its count is 0. The bits are those of
// Generate and Score.
func (b *Backbone) Evaluate(prompt []float32, pairs []Pair, maxNew int) ([][]int32, Result, error) {
	if err := checkFinite(prompt); err != nil {
		return nil, Result{}, err
	}
	res := newResult(pairs)
	out, err := b.t5.Evaluate(prompt, pairs, maxNew, res.Losses)
	if err == nil {
		err = res.finish()
	}
	if err != nil {
		return nil, Result{}, err
	}
	return out, res, nil
}

// begin checks a call's arguments and returns its empty result.
func (b *Backbone) begin(prompt []float32, pairs []Pair) (Result, error) {
	if err := checkFinite(prompt); err != nil {
		return Result{}, err
	}
	if err := b.t5.Check(prompt, pairs); err != nil {
		return Result{}, err
	}
	return newResult(pairs), nil
}

func newResult(pairs []Pair) Result {
	res := Result{Losses: make([]float64, len(pairs)), Counts: make([]int, len(pairs))}
	for i, p := range pairs {
		res.Counts[i] = len(p.Target)
	}
	return res
}

// finish checks the losses and adds them up.
func (r *Result) finish() error {
	for i, l := range r.Losses {
		if !isFinite(l) {
			return fmt.Errorf("pair %d: loss is %v, want a finite number", i, l)
		}
	}
	r.sum()
	return nil
}

func (r *Result) sum() {
	for i, l := range r.Losses {
		r.Loss += l
		r.Tokens += r.Counts[i]
	}
}

// nonFinitePair computes pair by pair and returns an error that names the first one whose loss or
// gradient is not finite.
func (b *Backbone) nonFinitePair(prompt []float32, pairs []Pair) error {
	loss := make([]float64, 1)
	for i := range pairs {
		clear(b.grads)
		if err := b.t5.LossGrad(prompt, pairs[i:i+1], loss, b.grads[:len(prompt)]); err != nil {
			return fmt.Errorf("pair %d: %w", i, err)
		}
		if !isFinite(loss[0]) {
			return fmt.Errorf("pair %d: loss is %v, want a finite number", i, loss[0])
		}
		for j, g := range b.grads[:len(prompt)] {
			if !isFinite(g) {
				return fmt.Errorf("pair %d: gradient of prompt row %d is %v, want a finite number", i, j/b.Dim(), g)
			}
		}
	}
	return fmt.Errorf("gradient of %d pairs is not finite in float32, though each pair's is", len(pairs))
}

func checkFinite(prompt []float32) error {
	for i, v := range prompt {
		if !isFinite(float64(v)) {
			return fmt.Errorf("prompt number %d is %v, want a finite number", i, v)
		}
	}
	return nil
}

func finite(x []float64) bool {
	for _, v := range x {
		if !isFinite(v) {
			return false
		}
	}
	return true
}

func isFinite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
