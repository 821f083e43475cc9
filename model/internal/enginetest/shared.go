package enginetest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/dptune/dpt/model/engine"
)

// sharedCase is an attention over ragged segments whose keys are its values.
type sharedCase struct {
	cols        int
	spec        engine.SegmentSpec
	nq, nk      int
	q, kv, dout []float32
	dkv         []float32 // what the gradient is added to
}

func randomShared(r *rand.Rand, queries, keys []int) sharedCase {
	c := sharedCase{cols: 1 + r.IntN(90)}
	for i, n := range queries {
		c.nq, c.nk = c.nq+r.IntN(3), c.nk+r.IntN(3) // rows of no segment
		c.spec.Q = append(c.spec.Q, engine.Span{Start: c.nq, Len: n})
		c.spec.KV = append(c.spec.KV, engine.Span{Start: c.nk, Len: keys[i]})
		c.nq, c.nk = c.nq+n, c.nk+keys[i]
	}
	c.q, c.dout = random(r, c.nq*c.cols), random(r, c.nq*c.cols)
	c.kv, c.dkv = random(r, c.nk*c.cols), random(r, c.nk*c.cols)
	for i := range c.q { // scores, and their gradients, of size 1
		c.q[i] /= float32(math.Sqrt(float64(c.cols)))
		c.dout[i] /= float32(math.Sqrt(float64(c.cols)))
	}
	return c
}

// segment is the case of one of c's segments alone.
func (c sharedCase) segment(i int) sharedCase {
	q, kv := c.spec.Q[i], c.spec.KV[i]
	part := func(x []float32, s engine.Span) []float32 { return x[s.Start*c.cols : (s.Start+s.Len)*c.cols] }
	return sharedCase{
		cols: c.cols,
		nq:   q.Len,
		nk:   kv.Len,
		q:    part(c.q, q),
		kv:   part(c.kv, kv),
		dout: part(c.dout, q),
		dkv:  part(c.dkv, kv),
		spec: engine.SegmentSpec{Q: []engine.Span{{Len: q.Len}}, KV: []engine.Span{{Len: kv.Len}}},
	}
}

// run returns out, lse, dq and dkv. Rows outside segments are zero; those of dkv are unchanged.
func (c sharedCase) run(t *testing.T, e engine.Engine, at place) [][]float64 {
	t.Helper()
	ws := e.NewWorkspace()
	dirty(e, ws)
	q, kv := at.upload(e, ws, engine.Narrow, c.q, c.nq, c.cols), at.upload(e, ws, engine.Narrow, c.kv, c.nk, c.cols)
	dout := at.upload(e, ws, engine.Narrow, c.dout, c.nq, c.cols)
	dkv := at.upload(e, ws, engine.Wide, c.dkv, c.nk, c.cols)
	out := ws.Tensor(engine.Narrow, c.nq, c.cols)
	lse := ws.Tensor(engine.Wide, c.nq, 1)
	dq := ws.Tensor(engine.Narrow, c.nq, c.cols)
	for _, x := range []engine.Tensor{out, lse, dq} {
		e.Zero(x)
	}
	seg := ws.Segments(c.spec)
	e.SharedAttentionForward(out, lse, q, kv, seg)
	e.SharedAttentionBackward(dq, dkv, dout, out, lse, q, kv, seg)
	return [][]float64{download(t, e, out), download(t, e, lse), download(t, e, dq), download(t, e, dkv)}
}

func (s *suite) sharedAttention(t *testing.T) {
	eng, many, ref := s.engine(t, 1), s.engine(t, 3), reference(t)
	names := []string{"out", "lse", "dq", "dkv"}
	for seed, lengths := range [][2][]int{
		{{1}, {1}}, {{12, 1, 24}, {70, 3, 129}}, {{200, 2}, {1, 64}}, {{65, 63, 8}, {31, 65, 200}},
	} {
		t.Run(fmt.Sprint(lengths), func(t *testing.T) {
			c := randomShared(rand.New(rand.NewPCG(uint64(seed), 4)), lengths[0], lengths[1])
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
			for i := range c.spec.Q {
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
