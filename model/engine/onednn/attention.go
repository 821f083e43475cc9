//go:build onednn && cgo

package onednn

// #include "kernels.h"
//
// static void dpt_attention_run(const dpt_kernels *k, const dpt_attn *a, long part,
//		void *scratch) {
//	k->attention(a, part, scratch);
// }
//
// static size_t dpt_attention_scratch(const dpt_kernels *k, const dpt_attn *a,
//		long queries, long keys) {
//	return k->attention_scratch(a, queries, keys);
// }
import "C"

import (
	"fmt"

	"github.com/dptune/dpt/model/engine"
)

// attentionTask runs attention for one segment and head per part.
type attentionTask struct {
	e    *Engine
	args C.dpt_attn
}

// AttentionForward implements engine.Engine.
func (e *Engine) AttentionForward(out, lse, q, k, v engine.Tensor, seg engine.Segments, b engine.Bias, heads int) {
	e.attention("AttentionForward", C.dpt_attn{}, out, lse, q, k, v, seg, b, heads)
}

// AttentionBackward implements engine.Engine.
func (e *Engine) AttentionBackward(
	dq, dk, dv, dout, out, lse, q, k, v engine.Tensor,
	seg engine.Segments,
	b engine.Bias,
	heads int,
) {
	dqm, dkm, dvm, dom, qm, km := mat(dq), mat(dk), mat(dv), mat(dout), mat(q), mat(k)
	check("AttentionBackward", "dout", dom, qm.rows, qm.cols)
	check("AttentionBackward", "dq", dqm, qm.rows, qm.cols)
	check("AttentionBackward", "dk", dkm, km.rows, km.cols)
	check("AttentionBackward", "dv", dvm, km.rows, km.cols)
	if dom.dt != qm.dt {
		panic("onednn: AttentionBackward: dout and q are of different precision")
	}
	args := C.dpt_attn{backward: 1, dq: dqm.mat(), dk: dkm.mat(), dv: dvm.mat(), dout: dom.mat()}
	e.attention("AttentionBackward", args, out, lse, q, k, v, seg, b, heads)
}

// SharedAttentionForward implements engine.Engine.
func (e *Engine) SharedAttentionForward(out, lse, q, kv engine.Tensor, seg engine.Segments) {
	e.attention("SharedAttentionForward", C.dpt_attn{}, out, lse, q, kv, kv, notCausal(seg), nil, 1)
}

// SharedAttentionBackward implements engine.Engine.
func (e *Engine) SharedAttentionBackward(dq, dkv, dout, out, lse, q, kv engine.Tensor, seg engine.Segments) {
	dqm, dm, dom, qm, km := mat(dq), mat(dkv), mat(dout), mat(q), mat(kv)
	check("SharedAttentionBackward", "dout", dom, qm.rows, qm.cols)
	check("SharedAttentionBackward", "dq", dqm, qm.rows, qm.cols)
	check("SharedAttentionBackward", "dkv", dm, km.rows, km.cols)
	if dom.dt != qm.dt {
		panic("onednn: SharedAttentionBackward: dout and q are of different precision")
	}
	args := C.dpt_attn{backward: 1, shared: 1, dq: dqm.mat(), dk: dm.mat(), dv: dm.mat(), dout: dom.mat()}
	e.attention("SharedAttentionBackward", args, out, lse, q, kv, kv, notCausal(seg), nil, 1)
}

func notCausal(seg engine.Segments) engine.Segments {
	if seg.(*segments).causal {
		panic("onednn: shared attention: segments are causal, want all keys seen by all queries")
	}
	return seg
}

func (e *Engine) attention(
	op string,
	args C.dpt_attn,
	out, lse, q, k, v engine.Tensor,
	seg engine.Segments,
	b engine.Bias,
	heads int,
) {
	om, lm, qm, km, vm, s := mat(out), mat(lse), mat(q), mat(k), mat(v), seg.(*segments)
	d := qm.cols / heads
	check(op, "q", qm, qm.rows, d*heads)
	check(op, "k", km, km.rows, qm.cols)
	check(op, "v", vm, km.rows, qm.cols)
	check(op, "out", om, qm.rows, qm.cols)
	checkWide(op, "lse", lm, qm.rows, heads)
	if km.dt != qm.dt || vm.dt != qm.dt {
		panic(fmt.Sprintf("onednn: %s: q, k and v are of different precision", op))
	}
	if s.qEnd > qm.rows || s.kEnd > km.rows {
		panic(fmt.Sprintf("onednn: %s: segments need %d query and %d key rows, tensors have %d and %d",
			op, s.qEnd, s.kEnd, qm.rows, km.rows))
	}
	args.out, args.lse, args.q, args.k, args.v = om.mat(), lm.mat(), qm.mat(), km.mat(), vm.mat()
	args.heads, args.d, args.segments = C.long(heads), C.long(d), s.p
	if s.causal {
		args.causal = 1
	}
	if b != nil {
		bm := b.(*bias)
		if bm.heads != heads {
			panic(fmt.Sprintf("onednn: %s: bias for %d heads, want %d", op, bm.heads, heads))
		}
		args.bias, args.lo, args.hi = (*C.float)(bm.p), C.long(bm.lo), C.long(bm.hi)
	}
	t := &e.attn
	t.e, t.args = e, args
	e.reserve(int(C.dpt_attention_scratch(e.kernels, &t.args, C.long(s.qMax), C.long(s.kMax))))
	e.run(s.n*heads, 8*s.work*qm.cols, t)
	t.args = C.dpt_attn{}
}

func (t *attentionTask) Do(part, worker int) {
	C.dpt_attention_run(t.e.kernels, &t.args, C.long(part), t.e.scratch[worker].p)
}
