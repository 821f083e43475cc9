//go:build onednn && cgo

package onednn

// #include "memory.h"
import "C"

import "unsafe"

// alloc returns n bytes that free or Close gives back, or nil if there is no memory.
func (e *Engine) alloc(n int) unsafe.Pointer {
	n = max(n, 1)
	p := C.dpt_alloc(C.size_t(n))
	if p != nil {
		e.memory[p] = n
	}
	return p
}

// Memory is what the engine holds outside of Go's heap: weights, workspaces and its threads'
// scratch memory.
func (e *Engine) Memory() (blocks, bytes int) {
	for _, n := range e.memory {
		bytes += n
	}
	blocks = len(e.memory)
	for _, s := range append(e.scratch[:len(e.scratch):len(e.scratch)], e.turned) {
		if s.size > 0 {
			blocks, bytes = blocks+1, bytes+s.size
		}
	}
	return blocks, bytes
}

func (e *Engine) free(p unsafe.Pointer) {
	C.dpt_free(p, C.size_t(e.memory[p]))
	delete(e.memory, p)
}

// slabBytes is the size of the blocks from which hold hands out memory. If each weight had a block
// of its own, its last huge page would on average be half empty.
const slabBytes = 1 << 25

// hold returns n bytes, 64-byte aligned, that stay until Close, or nil if there is no memory.
func (e *Engine) hold(n int) unsafe.Pointer {
	n = align(max(n, 1))
	if n > slabBytes/2 {
		return e.alloc(n)
	}
	if n > e.slab.size {
		p := e.alloc(slabBytes)
		if p == nil {
			return nil
		}
		e.slab = chunk{p, slabBytes}
	}
	p := e.slab.p
	e.slab = chunk{unsafe.Add(p, n), e.slab.size - n}
	return p
}
