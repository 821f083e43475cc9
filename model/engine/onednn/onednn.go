//go:build onednn && cgo

package onednn

// #cgo CFLAGS: -O3 -Wall
// #cgo LDFLAGS: -ldnnl -lm -ldl
// #include <stdlib.h>
// #include "gemm.h"
// #include "kernels.h"
// #include "memory.h"
import "C"

import (
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/internal/pool"
)

// Options of New.
type Options struct {
	Threads int  // 0 or less means one per CPU that Go may use; results do not depend on it
	BF16    bool // bfloat16 mode
	// Plain keeps weights row by row, in both orientations, instead of packed, and uses the
	// library's products: to measure what packing brings.
	Plain bool

	// kernels is the index of the kernels' instruction set among those that the CPU has, best
	// first; tests try all.
	kernels int
	library bool // the library's products even where the kernels' are better, for tests
}

// Engine implements engine.Engine.
type Engine struct {
	lib     *C.dpt_dnnl
	kernels *C.dpt_kernels
	bf16    bool
	plain   bool
	own     bool // products with frozen weights are the kernels', not the library's
	pool    *pool.Pool
	scratch []scratch // per worker
	turned  scratch   // for the turned panels of a panelTask
	panels  []int     // per worker: which panel its scratch memory holds while a linearTask runs

	products map[productKey]*product
	probes   hash.Hash64            // over the results of products of fixed operands: see probe
	memory   map[unsafe.Pointer]int // bytes of each block
	slab     chunk                  // the rest of the block from which hold hands out memory
	packed   []*C.dpt_packed

	errMu sync.Mutex
	err   error // the first failure of a product, until it is reported

	// One of each task, so that running an op allocates nothing.
	linear linearTask
	panel  panelTask
	attn   attentionTask
	rows   rowsTask
	embed  embedBackwardTask

	weight   weightGradientTask
	gainGrad gainGradientTask
	biasGrad biasGradientTask
	stacked  []float32 // memory of SetLinear
}

var _ engine.Engine = (*Engine)(nil)

// New opens oneDNN.
func New(opt Options) (engine.Engine, error) {
	e, err := open(opt)
	if err != nil {
		return nil, err
	}
	return e, nil
}

func open(opt Options) (*Engine, error) {
	threads := opt.Threads
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	var lib *C.dpt_dnnl
	if err := call(func() bool { lib = C.dpt_dnnl_open(C.int(threads)); return lib != nil }); err != nil {
		return nil, err
	}
	e := &Engine{
		lib:      lib,
		kernels:  C.dpt_kernels_get(C.int(opt.kernels)),
		bf16:     opt.BF16,
		plain:    opt.Plain,
		pool:     pool.New(threads),
		scratch:  make([]scratch, threads),
		panels:   make([]int, threads),
		products: map[productKey]*product{},
		probes:   fnv.New64a(),
		memory:   map[unsafe.Pointer]int{},
	}
	e.own = !opt.Plain && !opt.library && ownProducts(e.kernels, e.source())
	if e.own {
		e.probeOwn()
	}
	return e, nil
}

// call runs f, which calls the library, on one thread, and returns the library's error if f returns
// false.
func call(f func() bool) error {
	runtime.LockOSThread() // the error message is the thread's
	defer runtime.UnlockOSThread()
	if !f() {
		return errors.New(C.GoString(C.dpt_dnnl_error()))
	}
	return nil
}

// version is the version of the library that this process has loaded.
func version() string { return C.GoString(C.dpt_dnnl_version()) }

// Name is "onednn 2.6.3/bf16/avx2/2 threads" or the like, and
// "onednn own products/bf16/avx512bf16/2 threads" if the library multiplies nothing.
func (e *Engine) Name() string {
	return fmt.Sprintf("onednn %s/%s/%s/%d threads", e.multiplier(), e.dtype(), e.isa(), e.pool.Workers())
}

// multiplier names what multiplies with frozen weights.
func (e *Engine) multiplier() string {
	if e.own {
		return "own products"
	}
	return version()
}

// Numerics is "onednn 2.6.3/bf16/avx2/0123456789abcdef" or the like. The last part is a digest of
// the results of products of fixed operands, which show the order of summation; the library's
// product has results for the shape of each weight.
func (e *Engine) Numerics() string {
	return fmt.Sprintf("onednn %s/%s/%s/%016x", e.multiplier(), e.dtype(), e.isa(), e.probes.Sum64())
}

func (e *Engine) dtype() string {
	if e.bf16 {
		return "bf16"
	}
	return "f32"
}

// kernelsName is the name of the kernels' instruction set.
func (e *Engine) kernelsName() string { return C.GoString(e.kernels.name) }

// isa is kernelsName as far as it matters: bfloat16 instructions do nothing in float32 mode.
func (e *Engine) isa() string {
	name := e.kernelsName()
	if !e.bf16 {
		name = strings.TrimSuffix(name, "bf16")
	}
	return name
}

// Close ends the worker goroutines and frees all memory, that of tensors and weights included.
func (e *Engine) Close() error {
	e.pool.Close()
	for _, p := range e.packed {
		C.dpt_packed_free(p)
	}
	for _, p := range e.products {
		for _, g := range p.gemms {
			C.dpt_gemm_free(g)
		}
	}
	for p, n := range e.memory {
		C.dpt_free(p, C.size_t(n))
	}
	for _, s := range append(e.scratch, e.turned) {
		C.dpt_free(s.p, C.size_t(s.size))
	}
	C.dpt_dnnl_close(e.lib)
	e.packed, e.products, e.memory, e.scratch = nil, nil, nil, nil
	return nil
}

// scratch is memory that one worker reuses from part to part.
type scratch struct {
	p    unsafe.Pointer
	size int
}

// reserve grows every worker's scratch memory to n bytes. No task is running.
func (e *Engine) reserve(n int) {
	if e.scratch[0].size >= n {
		return
	}
	n += n / 4
	for i := range e.scratch {
		C.dpt_free(e.scratch[i].p, C.size_t(e.scratch[i].size))
		e.scratch[i] = scratch{C.dpt_alloc(C.size_t(n)), n}
		if e.scratch[i].p == nil {
			panic(fmt.Sprintf("onednn: out of memory: no %d bytes for a thread's scratch memory", n))
		}
	}
}

// reserveTurned grows the memory for turned panels to n bytes.
func (e *Engine) reserveTurned(n int) unsafe.Pointer {
	if e.turned.size < n {
		C.dpt_free(e.turned.p, C.size_t(e.turned.size))
		e.turned = scratch{C.dpt_alloc(C.size_t(n)), n}
		if e.turned.p == nil {
			panic(fmt.Sprintf("onednn: out of memory: no %d bytes for turned weights", n))
		}
	}
	return e.turned.p
}

// serialWork is the number of floating-point operations below which waking a worker costs more than
// it brings.
const serialWork = 1 << 19

// run spreads the parts of t over the workers, or runs them here if the whole work is too small for
// that.
func (e *Engine) run(parts, work int, t pool.Task) {
	if work >= serialWork {
		e.pool.Run(parts, t)
		return
	}
	for i := range parts {
		t.Do(i, 0)
	}
}

// dtype is how numbers are stored.
type dtype int

const (
	f32  dtype = C.DPT_F32
	bf16 dtype = C.DPT_BF16
)

func (d dtype) size() int {
	if d == bf16 {
		return 2
	}
	return 4
}

// tensor is a matrix whose element (i, j) is number i*ld + j from p on. Rows lie densely unless it
// is a view.
type tensor struct {
	rows, cols, ld int
	dt             dtype
	p              unsafe.Pointer
}

func (t *tensor) Rows() int { return t.rows }
func (t *tensor) Cols() int { return t.cols }

// at is the address of element (i, j).
func (t *tensor) at(i, j int) unsafe.Pointer { return unsafe.Add(t.p, (i*t.ld+j)*t.dt.size()) }

func (t *tensor) mat() C.dpt_mat { return C.dpt_mat{p: t.p, ld: C.long(t.ld), dt: C.int(t.dt)} }

func mat(t engine.Tensor) *tensor { return t.(*tensor) }

// check panics unless t is rows × cols.
func check(op, name string, t *tensor, rows, cols int) {
	if t.rows != rows || t.cols != cols {
		panic(fmt.Sprintf("onednn: %s: %s is %d×%d, want %d×%d", op, name, t.rows, t.cols, rows, cols))
	}
}

// checkWide panics unless t is a wide rows × cols tensor.
func checkWide(op, name string, t *tensor, rows, cols int) {
	check(op, name, t, rows, cols)
	if t.dt != f32 {
		panic(fmt.Sprintf("onednn: %s: %s is narrow, want a wide tensor", op, name))
	}
}

// kernelSets is the number of the kernels' instruction sets that this CPU has.
func kernelSets() int { return int(C.dpt_kernels_count()) }
