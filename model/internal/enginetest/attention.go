package enginetest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/dptune/dpt/model/engine"
)

// attentionCase is an attention over ragged segments, with random operands.
type attentionCase struct {
	heads, d int
	biased   bool
	lo, hi   int
	bias     []float32
	spec     engine.SegmentSpec
	nq, nk   int
	q, kv    []float32 // [nq, inner], [nk, 2·inner]
	dout     []float32
}

func randomAttention(r *rand.Rand, self, causal, biased bool, lengths []int) attentionCase {
	c := attentionCase{heads: 1 + r.IntN(4), d: 1 + r.IntN(20), biased: biased, lo: -1 - r.IntN(40), hi: r.IntN(40)}
	c.bias = random(r, c.heads*(c.hi-c.lo+1))
	c.spec.Causal = causal
	for _, n := range lengths {
		c.nk += r.IntN(3) // rows of no segment
		kv := engine.Span{Start: c.nk, Len: n}
		q, offset := kv, 0
		if !self {
			q = engine.Span{Start: c.nq + r.IntN(3), Len: 1 + r.IntN(70)}
			if causal { // new queries behind a cache
				q.Len = min(q.Len, n)
				offset = n - q.Len
			}
		}
		c.spec.Q = append(c.spec.Q, q)
		c.spec.KV = append(c.spec.KV, kv)
		c.spec.Offset = append(c.spec.Offset, offset)
		c.nk, c.nq = kv.Start+kv.Len, q.Start+q.Len
	}
	inner := c.heads * c.d
	c.q, c.kv, c.dout = random(r, c.nq*inner), random(r, c.nk*2*inner), random(r, c.nq*inner)
	return c
}

// segment is the case of one of c's segments alone, in fresh tensors.
func (c attentionCase) segment(i int) attentionCase {
	s, inner := c, c.heads*c.d
	q, kv := c.spec.Q[i], c.spec.KV[i]
	s.nq, s.nk = q.Len, kv.Len
	s.q, s.dout = c.q[q.Start*inner:(q.Start+q.Len)*inner], c.dout[q.Start*inner:(q.Start+q.Len)*inner]
	s.kv = c.kv[kv.Start*2*inner : (kv.Start+kv.Len)*2*inner]
	s.spec = engine.SegmentSpec{
		Q:      []engine.Span{{Len: q.Len}},
		KV:     []engine.Span{{Len: kv.Len}},
		Offset: c.spec.Offset[i : i+1],
		Causal: c.spec.Causal,
	}
	return s
}

// run returns out, lse, dq, dkv; rows outside segments are zero.
func (c attentionCase) run(t *testing.T, e engine.Engine, at place) [][]float64 {
	t.Helper()
	ws := e.NewWorkspace()
	dirty(e, ws)
	inner := c.heads * c.d
	var bias engine.Bias
	if c.biased {
		bias = must(e.NewBias(c.heads, c.lo, c.hi, c.bias))
	}
	q, kv := at.upload(e, ws, engine.Narrow, c.q, c.nq, inner), at.upload(e, ws, engine.Narrow, c.kv, c.nk, 2*inner)
	dout := at.upload(e, ws, engine.Narrow, c.dout, c.nq, inner)
	out, lse := ws.Tensor(engine.Narrow, c.nq, inner), ws.Tensor(engine.Wide, c.nq, c.heads)
	dq, dkv := ws.Tensor(engine.Narrow, c.nq, inner), ws.Tensor(engine.Narrow, c.nk, 2*inner)
	for _, x := range []engine.Tensor{out, lse, dq, dkv} {
		e.Zero(x)
	}
	k, v := ws.View(kv, 0, c.nk, 0, inner), ws.View(kv, 0, c.nk, inner, inner)
	dk, dv := ws.View(dkv, 0, c.nk, 0, inner), ws.View(dkv, 0, c.nk, inner, inner)
	seg := ws.Segments(c.spec)
	if seg.Len() != len(c.spec.Q) {
		t.Errorf("Segments.Len is %d, want %d", seg.Len(), len(c.spec.Q))
	}
	e.AttentionForward(out, lse, q, k, v, seg, bias, c.heads)
	e.AttentionBackward(dq, dk, dv, dout, out, lse, q, k, v, seg, bias, c.heads)
	return [][]float64{download(t, e, out), download(t, e, lse), download(t, e, dq), download(t, e, dkv)}
}

func (s *suite) attention(t *testing.T) {
	eng, many, ref := s.engine(t, 1), s.engine(t, 3), reference(t)
	names := []string{"out", "lse", "dq", "dkv"}
	for seed := range uint64(16) {
		self, causal, biased := seed&1 == 0, seed&2 == 0, seed&4 == 0
		lengths := [][]int{{1}, {1, 70, 3, 1, 129, 64}, {200, 2}, {65, 63, 1}}[seed/4]
		t.Run(fmt.Sprintf("self=%v/causal=%v/biased=%v/%v", self, causal, biased, lengths), func(t *testing.T) {
			c := randomAttention(rand.New(rand.NewPCG(seed, 3)), self, causal, biased, lengths)
			want, got, got3 := c.run(t, ref, place{}), c.run(t, eng, place{}), c.run(t, many, place{})
			for i, name := range names {
				s.compare(t, name, got[i], want[i])
				sameBits(t, name+" with 3 threads", got3[i], got[i])
			}
			for _, at := range places {
				for i, x := range c.run(t, many, at) {
					sameBits(t, fmt.Sprintf("%s with operands at %+v", names[i], at), x, got[i])
				}
			}
			for i := range lengths {
				alone := c.segment(i)
				for j, part := range alone.run(t, many, place{}) {
					rows, start := alone.nq, c.spec.Q[i].Start
					if names[j] == "dkv" {
						rows, start = alone.nk, c.spec.KV[i].Start
					}
					cols := len(part) / rows
					sameBits(t, fmt.Sprintf("%s of segment %d alone", names[j], i), part,
						got[j][start*cols:(start+rows)*cols])
				}
			}
		})
	}
}
