//go:build onednn && cgo

package onednn

// #include "gemm.h"
import "C"

import (
	"bytes"
	"fmt"
	"unsafe"
)

// blockRows are the numbers of rows that products are made for, in falling order. All rows can run
// in blocks of the base size; larger ones stream weights through the caches less often.
var blockRows = [...]int{256, 64, 16, 4}

const base = 1

// productKey names products x[·,k]·w[k,n].
type productKey struct {
	k, n     int
	src, dst dtype
}

// cGEMM is the library's product for one number of rows.
type cGEMM = C.dpt_gemm

// product multiplies blocks of rows with packed weights of one shape.
type product struct {
	key     productKey
	gemms   [len(blockRows)]*cGEMM // by index of blockRows; nil if that many rows would give other bits
	scratch int                    // bytes
	layout  *C.dpt_layout          // of packed weights; nil if only the library knows it, or lays them out
	panels  []*C.dpt_packed        // per worker: the handle of the panel that it packs; made by newHandles
}

// source is the type of products' operands.
func (e *Engine) source() dtype {
	if e.bf16 {
		return bf16
	}
	return f32
}

// product returns the product for a key, made when it is first asked for. All products of equal
// shape use the weights' layout of the one whose result is float32.
func (e *Engine) product(key productKey) (*product, error) {
	if p := e.products[key]; p != nil {
		return p, nil
	}
	var like *C.dpt_gemm
	if key.dst != f32 {
		wide := key
		wide.dst = f32
		p, err := e.product(wide)
		if err != nil {
			return nil, err
		}
		like = p.gemms[base]
	}
	p := &product{key: key}
	var err error
	if p.gemms[base], err = e.newGEMM(key, blockRows[base], like); err != nil {
		return nil, err
	}
	e.products[key] = p // Close frees its gemms from here on
	for i, rows := range blockRows {
		if i == base {
			continue
		}
		// If the library has no such product for this layout, blocks of other sizes serve.
		if p.gemms[i], err = e.newGEMM(key, rows, p.gemms[base]); err != nil {
			p.gemms[i] = nil
		}
	}
	var layout C.dpt_layout
	if !e.plain && C.dpt_gemm_layout(p.gemms[base], &layout) != 0 {
		p.layout = &layout
	}
	for _, g := range p.gemms {
		if g != nil {
			p.scratch = max(p.scratch, int(C.dpt_gemm_scratch(g)))
		}
	}
	if err := e.probe(p); err != nil {
		return nil, err
	}
	return p, nil
}

// size of packed weights in bytes.
func (p *product) size() int { return int(C.dpt_gemm_packed_size(p.gemms[base])) }

func (e *Engine) newGEMM(key productKey, rows int, like *C.dpt_gemm) (*C.dpt_gemm, error) {
	var g *C.dpt_gemm
	err := call(func() bool {
		g = C.dpt_gemm_new(e.lib, C.long(rows), C.long(key.k), C.long(key.n), C.int(key.src), C.int(key.dst),
			C.bool(e.plain), like)
		return g != nil
	})
	if err != nil {
		return nil, fmt.Errorf("product [%d,%d]·[%d,%d]: %w", rows, key.k, key.k, key.n, err)
	}
	return g, nil
}

// probe drops the block sizes whose results differ in any bit from the base's, and adds a base
// block's results to the engine's probes. With its operands each sum is 0 in exact arithmetic: the
// results are rounding errors alone, which show the order of summation even in bfloat16.
func (e *Engine) probe(p *product) error {
	k, n, rows := p.key.k, p.key.n, blockRows[0]
	w, weights := e.alloc(4*k*n), e.alloc(p.size())
	x := e.alloc(rows * k * p.key.src.size())
	y := e.alloc(2 * rows * n * p.key.dst.size())
	e.reserve(p.scratch)
	for _, m := range []unsafe.Pointer{w, weights, x, y} {
		if m == nil {
			return fmt.Errorf("product of %d×%d weights: no memory for its test", k, n)
		}
		defer e.free(m)
	}

	// Operands: the second half of the depth repeats the first, negated in x.
	r := noise(1)
	ws := unsafe.Slice((*float32)(w), k*n)
	half := max(k/2, 1)
	for i := range ws[:min(half*n, k*n)] {
		ws[i] = r.next()
	}
	for i := half * n; i < len(ws); i++ {
		ws[i] = ws[i-half*n]
	}
	row := make([]float32, k)
	for i := range rows {
		for j := range row {
			if j < half {
				row[j] = r.next()
			} else {
				row[j] = -row[j-half]
			}
		}
		if p.key.src == f32 {
			copy(unsafe.Slice((*float32)(x), rows*k)[i*k:], row)
			continue
		}
		for j, v := range row {
			unsafe.Slice((*uint16)(x), rows*k)[i*k+j] = uint16(*(*uint32)(unsafe.Pointer(&v)) >> 16)
		}
	}

	// Compare every block size with the base.
	var b *C.dpt_packed
	if err := call(func() bool {
		b = C.dpt_pack(p.gemms[base], 0, (*C.float)(w), C.long(n), 1, weights)
		return b != nil
	}); err != nil {
		return err
	}
	defer C.dpt_packed_free(b)
	rowBytes := n * p.key.dst.size()
	results := unsafe.Slice((*byte)(y), 2*rows*rowBytes)
	want, got := results[:rows*rowBytes], results[rows*rowBytes:]
	run := func(i int, to []byte) error {
		for at := 0; at < rows; at += blockRows[i] {
			from := unsafe.Add(x, at*k*p.key.src.size())
			if err := e.multiply(p.gemms[i], 0, from, b, unsafe.Pointer(&to[at*rowBytes])); err != nil {
				return err
			}
		}
		return nil
	}
	if err := run(base, want); err != nil {
		return err
	}
	for i, g := range p.gemms {
		if g == nil || i == base {
			continue
		}
		if err := run(i, got); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			C.dpt_gemm_free(g)
			p.gemms[i] = nil
		}
	}
	e.probes.Write(want[:blockRows[base]*rowBytes])
	return nil
}

// multiply runs g on the calling goroutine as worker, with the front of its scratch memory.
func (e *Engine) multiply(g *C.dpt_gemm, worker int, x unsafe.Pointer, w *C.dpt_packed, y unsafe.Pointer) error {
	if C.dpt_gemm_run(g, C.int(worker), x, w, y, e.scratch[worker].p) == 0 {
		return nil
	}
	return fmt.Errorf("oneDNN failed to run %s", C.GoString(C.dpt_gemm_info(g)))
}

// noise is a small generator of numbers that bfloat16 holds exactly, of magnitudes up to 2^15. The
// magnitudes differ by powers of 2, so that sums of their products round in float32: numbers of one
// magnitude have few enough bits for every order of summation to be exact.
type noise uint64

func (r *noise) next() float32 {
	*r = *r*6364136223846793005 + 1442695040888963407
	size := uint64(1) << (*r >> 40 & 15)
	return float32(int64(*r)>>57) / 64 * float32(size)
}
