//go:build onednn && cgo

package onednn

// #include "kernels.h"
//
// static void dpt_product_run(const dpt_kernels *k, int dt, dpt_mat y, dpt_mat x,
//		const void *w, long depth, int add, long rows, long cols) {
//	dpt_product a = {.y = y, .x = x, .w = w, .k = depth, .add = add};
//	k->product[dt](&a, rows, cols);
// }
//
// static void dpt_turn_panel(const dpt_kernels *k, const dpt_layout *from, const void *src,
//		long first, long width, void *dst) {
//	dpt_layout to = {.k = from->n, .n = width, .nb = from->nb, .v = from->v, .dt = from->dt};
//	to.kpad = (to.k + to.v - 1) / to.v * to.v;
//	size_t size = (size_t)to.kpad * to.nb * (to.dt == DPT_F32 ? 4 : 2);
//	if (to.kpad != to.k || width != to.nb) __builtin_memset(dst, 0, size);
//	k->turn(from, src, first, 0, to.k, &to, dst, 0);
// }
//
// static int dpt_has_product(const dpt_kernels *k, int dt) {
//	return k->product[dt] != NULL;
// }
import "C"

import (
	"fmt"
	"unsafe"
)

// panelCols is the number of columns in a panel of weights for the kernels' own product.
const panelCols = C.DPT_PANEL

// ownProducts reports whether the kernels' product is faster than the library's: if the CPU has the
// vectors, but no units for products of matrices, which only the library uses.
func ownProducts(k *C.dpt_kernels, dt dtype) bool {
	return C.dpt_has_product(k, C.int(dt)) != 0 && (dt == f32 || C.dpt_matrix_units() == 0)
}

// panelLayout is the layout of weights [k, n] for the kernels' product.
func panelLayout(k, n int, dt dtype) *C.dpt_layout {
	v := 4 / dt.size()
	return &C.dpt_layout{
		k:    C.long(k),
		n:    C.long(n),
		kpad: C.long((k + v - 1) / v * v),
		nb:   panelCols,
		v:    C.long(v),
		dt:   C.int(dt),
	}
}

// panelBytes is the size of a panel of weights k deep.
func panelBytes(k int, dt dtype) int { return (k*dt.size() + 3) / 4 * 4 * panelCols }

// newPanels lays out a weight for the kernels' product, in memory of its own.
func (e *Engine) newPanels(k, n int) (*packed, error) {
	p := &packed{k: k, n: n, width: n, layout: panelLayout(k, n, e.source())}
	m := e.hold(p.panels() * panelBytes(k, e.source()))
	if m == nil {
		return nil, fmt.Errorf("no memory for %d×%d weights", k, n)
	}
	p.memories = []unsafe.Pointer{m}
	return p, nil
}

// panels is the number of p's panels.
func (p *packed) panels() int { return (p.n + panelCols - 1) / panelCols }

// panelTask computes y = x·w or y += x·w by the kernels' product, for each weight of a group: a
// chunk of rows with a strip of panels at a time. If w is a transpose without memory of its own,
// its panels are turned first: all of them, or, if there is only one chunk of rows, each just
// before it is used.
type panelTask struct {
	e            *Engine
	x, y         tensor // of the group's first weight
	xStep, yStep int    // columns from there to the next one's
	w            []*packed
	add          C.int

	copied         bool // the product cannot read x in place: it goes through scratch memory
	large, larges  int  // rows of the first chunks, and their number; the others have smallRows
	chunks         int
	panels, strips int // panels of a strip, and the number of strips
	from, to       int // panels that are ready: all, or those turned now
	phase          phase

	turned    unsafe.Pointer // panels from `from` on, of each weight of the group, if they are turned first
	perWeight int            // bytes of a weight's turned panels
	xOffset   int            // of a copied x in a worker's scratch memory
}

// phase is what a panelTask's parts do.
type phase int

const (
	multiplyPanels     phase = iota // multiply with panels that are ready
	turnPanels                      // turn panels into t.turned
	turnMultiplyPanels              // turn each panel into scratch memory and multiply with it
)

const (
	// Rows of most chunks, and of the last ones, so that no worker waits long for another: both are
	// whole tiles.
	largeRows = 96
	smallRows = 24
	fewRows   = 192 // up to here, one chunk holds all rows
	// maxTurned is about how many numbers of a transpose are turned at a time.
	maxTurned = 1 << 22
)

// multiplyOwn runs t by the kernels' product. It sets e and the fields that follow from the
// operands.
func (e *Engine) multiplyOwn(t panelTask, accumulate bool) {
	// Chunks, strips and scratch memory.
	w, rows := t.w[0], t.x.rows
	dt := e.source()
	t.e = e
	if accumulate {
		t.add = 1
	}
	t.copied = t.x.dt != dt || w.k*dt.size()%4 != 0
	t.from, t.to = 0, w.panels()
	t.plan()
	work := 2 * rows * w.k * w.n * len(t.w)
	t.xOffset = align(panelBytes(w.k, dt))
	scratch := t.xOffset
	if t.copied {
		scratch += t.large * panelBytes(w.k, dt) / panelCols
	}
	e.reserve(scratch)

	// One pass, if the panels are ready or each is turned where it is used.
	task := &e.panel
	if w.source == nil || t.chunks == 1 {
		if w.source != nil {
			t.phase = turnMultiplyPanels
		}
		*task = t
		e.run(t.chunks*t.strips*len(t.w), work, task)
		*task = panelTask{}
		return
	}

	// Else alternate: turn some panels, then multiply all rows with them.
	bytes := panelBytes(w.k, dt)
	step := max(1, min(t.to, maxTurned/(w.k*panelCols*len(t.w))))
	t.perWeight = step * bytes
	t.turned = e.reserveTurned(t.perWeight * len(t.w))
	for all := t.to; t.from < all; t.from += step {
		t.to = min(all, t.from+step)
		t.strips = (t.to - t.from + t.panels - 1) / t.panels
		t.phase = turnPanels
		*task = t
		e.run((t.to-t.from)*len(t.w), work, task)
		task.phase = multiplyPanels
		e.run(t.chunks*t.strips*len(t.w), work, task)
	}
	*task = panelTask{}
}

// plan cuts the rows into chunks and, if these are too few for the workers, the panels into strips.
func (t *panelTask) plan() {
	rows, panels, workers := t.x.rows, t.to-t.from, t.e.pool.Workers()
	t.large, t.larges, t.chunks = rows, 1, 1
	if rows > fewRows {
		t.large = largeRows
		t.larges = rows * 3 / 4 / largeRows
		t.chunks = t.larges + (rows-t.larges*t.large+smallRows-1)/smallRows
	}
	// At least four parts per worker, if there are enough panels.
	t.strips = min(panels, max(1, 4*workers/(t.chunks*len(t.w))))
	t.panels = (panels + t.strips - 1) / t.strips
	t.strips = (panels + t.panels - 1) / t.panels
}

// chunk returns the first row of chunk i and its number of rows.
func (t *panelTask) chunk(i int) (first, rows int) {
	if i < t.larges {
		return i * t.large, t.large
	}
	first = t.larges*t.large + (i-t.larges)*smallRows
	return first, min(smallRows, t.x.rows-first)
}

func (t *panelTask) Do(part, worker int) {
	w := t.w[0]
	bytes := panelBytes(w.k, t.e.source())
	if t.phase == turnPanels {
		panel := t.from + part%(t.to-t.from)
		member := part / (t.to - t.from)
		t.turn(member, panel, unsafe.Add(t.turned, member*t.perWeight+(panel-t.from)*bytes))
		return
	}
	strip := part % t.strips
	part /= t.strips
	chunk, member := part%t.chunks, part/t.chunks
	row, rows := t.chunk(chunk)
	x := tensor{rows: rows, cols: w.k, ld: t.x.ld, dt: t.x.dt, p: t.x.at(row, member*t.xStep)}
	scratch := t.e.scratch[worker].p
	if t.copied {
		x = t.copy(x, unsafe.Add(scratch, t.xOffset))
	}
	first := t.from + strip*t.panels
	last := min(t.to, first+t.panels)
	if t.phase == turnMultiplyPanels {
		for panel := first; panel < last; panel++ {
			t.turn(member, panel, scratch)
			t.multiply(x, row, member, panel, panel+1, scratch)
		}
		return
	}
	weights := unsafe.Add(t.turned, member*t.perWeight+(first-t.from)*bytes)
	if own := t.w[member]; own.source == nil {
		weights = unsafe.Add(own.memories[0], first*bytes)
	}
	t.multiply(x, row, member, first, last, weights)
}

// multiply computes the rows of x with panels [first, last) of a group's member, which are at
// weights.
func (t *panelTask) multiply(x tensor, row, member, first, last int, weights unsafe.Pointer) {
	w, col := t.w[member], first*panelCols
	y := C.dpt_mat{p: t.y.at(row, member*t.yStep+col), ld: C.long(t.y.ld), dt: C.int(t.y.dt)}
	C.dpt_product_run(t.e.kernels, C.int(x.dt), y, x.mat(), weights, C.long(w.k), t.add, C.long(x.rows),
		C.long(min(w.n, last*panelCols)-col))
}

// turn writes panel i of a member, a transpose, to memory.
func (t *panelTask) turn(member, i int, memory unsafe.Pointer) {
	w := t.w[member]
	C.dpt_turn_panel(t.e.kernels, w.source.layout, w.source.memories[0], C.long(i*panelCols),
		C.long(min(panelCols, w.n-i*panelCols)), memory)
}

// copy copies x to memory in the form that the product reads.
func (t *panelTask) copy(x tensor, memory unsafe.Pointer) tensor {
	dt := t.e.source()
	v := 4 / dt.size()
	y := tensor{rows: x.rows, cols: x.cols, ld: (x.cols + v - 1) / v * v, dt: dt, p: memory}
	if y.ld != y.cols {
		clear(unsafe.Slice((*byte)(memory), y.rows*y.ld*dt.size()))
	}
	t.e.copyRows(C.DPT_COPY, y.mat(), x.mat(), x.rows, x.cols)
	return y
}

// probeOwn adds the results of the kernels' product of fixed operands to the engine's probes. The
// operands are of the kind that probe uses for the library.
func (e *Engine) probeOwn() {
	const k, n, rows = 192, panelCols, 7
	dt := e.source()
	w, x, y := e.alloc(panelBytes(k, dt)), e.alloc(rows*k*dt.size()), e.alloc(4*rows*n)
	defer e.free(w)
	defer e.free(x)
	defer e.free(y)
	r := noise(1)
	for i := range k / 2 {
		for j := range n {
			v := r.next()
			e.put(w, e.place(i, j), v)
			e.put(w, e.place(i+k/2, j), v)
		}
		for j := range rows {
			v := r.next()
			e.put(x, j*k+i, v)
			e.put(x, j*k+i+k/2, -v)
		}
	}
	C.dpt_product_run(e.kernels, C.int(dt), C.dpt_mat{p: y, ld: n, dt: C.DPT_F32},
		C.dpt_mat{p: x, ld: k, dt: C.int(dt)}, w, k, 0, rows, n)
	e.probes.Write([]byte("panels"))
	e.probes.Write(unsafe.Slice((*byte)(y), 4*rows*n))
}

// place is the index of element (i, j) in a panel.
func (e *Engine) place(i, j int) int {
	v := 4 / e.source().size()
	return i/v*panelCols*v + j*v + i%v
}

// put sets number i at p, which has the products' type, to v.
func (e *Engine) put(p unsafe.Pointer, i int, v float32) {
	if e.bf16 {
		unsafe.Slice((*uint16)(p), i+1)[i] = toBF16(v)
	} else {
		unsafe.Slice((*float32)(p), i+1)[i] = v
	}
}
