//go:build onednn && cgo

package onednn

// #include "kernels.h"
//
// static void dpt_pack_run(const dpt_kernels *k, const dpt_layout *to, void *dst,
//		const float *w, long ld, long first, long last) {
//	k->pack(to, dst, w, ld, first, last);
// }
//
// static void dpt_turn_run(const dpt_kernels *k, const dpt_layout *from, const void *src,
//		long i0, long j0, long rows, const dpt_layout *to, void *dst, long at) {
//	k->turn(from, src, i0, j0, rows, to, dst, at);
// }
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// packed is a weight [k, n] in the layout of products. A large one is cut along n into parts that
// run in parallel and stay in cache. One with a source has no memory of its own: its parts are
// packed from the source, the transposed weight, whenever they are used.
type packed struct {
	k, n     int
	width    int // columns of all parts but the last
	parts    []*C.dpt_packed
	memories []unsafe.Pointer
	source   *packed
	layout   *C.dpt_layout // for the kernels' product: one part, or none with a source; else nil
}

const (
	wholeElems = 1 << 23 // weights up to here are one part
	partElems  = 1 << 22
)

// newPacked lays out a weight in memory of its own; fill fills it.
func (e *Engine) newPacked(k, n int) (*packed, error) {
	if e.own {
		return e.newPanels(k, n)
	}
	p := &packed{k: k, n: n, width: n}
	if k*n > wholeElems {
		p.width = min(n, max(64, partElems/k&^63))
	}
	for i := range p.count() {
		pr, err := e.partProduct(p, i, f32)
		if err != nil {
			return nil, err
		}
		m := e.hold(pr.size())
		if m == nil {
			return nil, fmt.Errorf("no memory for %d×%d weights", k, n)
		}
		part, err := e.packedAt(pr, m)
		if err != nil {
			return nil, err
		}
		p.parts, p.memories = append(p.parts, part), append(p.memories, m)
	}
	return p, nil
}

// packedAt makes the library's handle for weights at m.
func (e *Engine) packedAt(p *product, m unsafe.Pointer) (*C.dpt_packed, error) {
	var h *C.dpt_packed
	if err := call(func() bool {
		h = C.dpt_packed_at(p.gemms[base], m)
		return h != nil
	}); err != nil {
		return nil, err
	}
	e.packed = append(e.packed, h)
	return h, nil
}

// Panels of a weight that is packed when it is used have enough columns to make a product efficient
// and, if possible, few enough to stay in a core's cache. Only a panel of 64 columns may exceed
// maxPanel.
const (
	panelMin   = 128
	panelElems = 3 << 17
	minPanels  = 6        // of a weight, so that few rows still keep several workers busy
	maxPanel   = 12 << 20 // bytes
)

// transposed is source's transpose, to be packed when it is used, or nil if the library does not
// tell the layouts.
func (e *Engine) transposed(source *packed) (*packed, error) {
	if e.own {
		return &packed{
			k:      source.n,
			n:      source.k,
			width:  source.k,
			source: source,
			layout: panelLayout(source.n, source.k, e.source()),
		}, nil
	}
	p := &packed{k: source.n, n: source.k, source: source}
	p.width = min(p.n, max(panelMin, min(panelElems/p.k, p.n/minPanels)&^63))
	for p.width > 64 && p.k*p.width*e.source().size() > maxPanel {
		p.width -= 64
	}
	for i := range source.count() {
		if pr, err := e.partProduct(source, i, f32); err != nil || pr.layout == nil {
			return nil, err
		}
	}
	for _, i := range [2]int{0, p.count() - 1} {
		pr, err := e.partProduct(p, i, f32)
		if err != nil || pr.layout == nil {
			return nil, err
		}
	}
	return p, nil
}

// newHandles makes handles for each worker's panels.
func (e *Engine) newHandles(p *product) error {
	for len(p.panels) < e.pool.Workers() {
		h, err := e.packedAt(p, nil)
		if err != nil {
			return err
		}
		p.panels = append(p.panels, h)
	}
	return nil
}

// count is the number of parts.
func (p *packed) count() int { return (p.n + p.width - 1) / p.width }

// cols is part i's first column and width.
func (p *packed) cols(i int) (first, width int) {
	return i * p.width, min(p.width, p.n-i*p.width)
}

// partProduct is the product with part i of p, with results of type dst.
func (e *Engine) partProduct(p *packed, i int, dst dtype) (*product, error) {
	_, n := p.cols(i)
	return e.product(productKey{p.k, n, e.source(), dst})
}

// layout is the layout of part i of p; nil if only the library knows it.
func (e *Engine) layout(p *packed, i int) (*C.dpt_layout, error) {
	if p.layout != nil {
		return p.layout, nil
	}
	pr, err := e.partProduct(p, i, f32)
	if err != nil {
		return nil, err
	}
	return pr.layout, nil
}

// turnInto packs part i of p, a transpose, into memory for the product pr.
func (e *Engine) turnInto(memory unsafe.Pointer, p *packed, i int, pr *product) {
	to := pr.layout
	first, _ := p.cols(i)
	if to.kpad != to.k || to.n%to.nb != 0 {
		clear(unsafe.Slice((*byte)(memory), pr.size()))
	}
	for j := range p.source.count() {
		at, rows := p.source.cols(j)
		from := e.products[productKey{p.source.k, rows, e.source(), f32}].layout
		C.dpt_turn_run(e.kernels, from, p.source.memories[j], C.long(first), 0, C.long(rows), to, memory, C.long(at))
	}
}

// pack packs w [out, in].
func (e *Engine) pack(w []float32, out, in int) (*linear, error) {
	forward, err := e.newPacked(in, out)
	if err != nil {
		return nil, fmt.Errorf("linear: %w", err)
	}
	backward, err := e.transposed(forward)
	if err != nil {
		return nil, fmt.Errorf("linear: %w", err)
	}
	if backward == nil {
		if backward, err = e.newPacked(out, in); err != nil {
			return nil, fmt.Errorf("linear: %w", err)
		}
	}
	l := &linear{out: out, in: in, forward: []*packed{forward}, backward: []*packed{backward}}
	return l, e.fill(l, w)
}

// fillTask packs pieces of w [·, in] into weights that have memory. A piece is some columns if the
// layout is known, else a whole part.
type fillTask struct {
	e      *Engine
	w      []float32
	in     int
	pieces []piece
	errs   []error // per piece
}

// piece is columns [first, last) of a part of a weight, whose column 0 is the weight's column at.
type piece struct {
	to              *packed
	part            int
	at, first, last int
	backward        bool
}

// pieceCols is a multiple of every layout's blocks.
const pieceCols = 192

// fill gives l the values w [out, in].
func (e *Engine) fill(l *linear, w []float32) error {
	t := &fillTask{e: e, w: w, in: l.in}
	for i, p := range [2]*packed{l.forward[0], l.backward[0]} {
		if p.source != nil {
			continue
		}
		for j := range p.count() {
			at, n := p.cols(j)
			layout, err := e.layout(p, j)
			if err != nil {
				return err
			}
			step := n
			if i == 0 && layout != nil && pieceCols%int(layout.nb) == 0 {
				step = pieceCols
			}
			for first := 0; first < n; first += step {
				t.pieces = append(t.pieces, piece{p, j, at, first, min(n, first+step), i == 1})
			}
		}
	}
	t.errs = make([]error, len(t.pieces))
	e.run(len(t.pieces), 2*len(w), t)
	return errors.Join(t.errs...)
}

func (t *fillTask) Do(i, worker int) {
	p := t.pieces[i]
	layout, err := t.e.layout(p.to, p.part)
	if !p.backward && layout != nil {
		C.dpt_pack_run(t.e.kernels, layout, p.to.memories[p.part], (*C.float)(unsafe.Pointer(&t.w[p.at*t.in])),
			C.long(t.in), C.long(p.first), C.long(p.last))
		return
	}
	from, rs, cs := p.at*t.in, 1, t.in // element (i, j) is w[j*in + i]
	if p.backward {
		from, rs, cs = p.at, t.in, 1
	}
	if err != nil {
		t.errs[i] = err
		return
	}
	_, n := p.to.cols(p.part)
	pr := t.e.products[productKey{p.to.k, n, t.e.source(), f32}]
	t.errs[i] = t.e.reorder(p.to.parts[p.part], pr, worker, t.w[from:], rs, cs)
}

// reorder packs by the library: element (i, j) is w[i*rs + j*cs].
func (e *Engine) reorder(to *C.dpt_packed, p *product, worker int, w []float32, rs, cs int) error {
	return call(func() bool {
		return C.dpt_repack(to, p.gemms[base], C.int(worker), (*C.float)(unsafe.Pointer(&w[0])), C.long(rs),
			C.long(cs)) == 0
	})
}
