package t5

import "github.com/dptune/dpt/model/engine"

// crossSaved holds the operands of cross-attention's backward, first for absorbed rows, then for
// the rest.
type crossSaved struct {
	norm normSaved

	folded   engine.Tensor // [absorbed·heads, d_model]: queries times W_k, a row per head
	gathered engine.Tensor // [absorbed·heads, d_model]: their weighted sums of the encoder's output
	logNorm  engine.Tensor // [absorbed·heads, 1]

	rest attentionSaved
	kv   engine.Tensor // k, v side by side
}

// absorbs reports whether the loss of an example computes cross-attention by absorption: whether
// that multiplies less, forward and backward together, for the given numbers of encoder and decoder
// rows. It depends on the example alone, so that the example's bits do, and it counts both passes
// even if there is no backward, so that a loss is the same with and without gradient.
func (m *Model) absorbs(source, target int) bool {
	if m.opt.NoAbsorption {
		return false
	}
	e, inner, heads := m.cfg.DModel, m.cfg.inner(), m.cfg.NumHeads
	// Two products in forward, five in backward with the recomputed scores.
	absorbed := 7*target*heads*source*e + 4*target*inner*e
	direct := 7*target*inner*source + 4*source*inner*e
	return absorbed < direct
}

// absorbSteps is the number of tokens decoded by absorption before the encoder's output is
// projected to keys and values. At that point the extra cost of absorption equals the cost of the
// projection, so decoding never costs more than twice the better way, wherever the output ends.
func (m *Model) absorbSteps() int {
	if m.opt.NoAbsorption {
		return 0
	}
	e, d := m.cfg.DModel, m.cfg.DKV
	if e <= d {
		return int(^uint(0) >> 1)
	}
	return d * e / (e - d)
}

// crossAttentionForward returns the stream with o(attention(q(norm(x)), kv(enc))) pending. kv is
// the projection of in.rest if the caller has it, else nil.
func (m *Model) crossAttentionForward(
	ws engine.Workspace,
	w *crossAttention,
	s stream,
	in *crossInput,
	kv engine.Tensor,
) (stream, crossSaved) {
	m.tmp.Reset()
	y, norm := m.norm(ws, s, w.norm)
	saved := crossSaved{norm: norm}
	q := m.linear(ws, engine.Narrow, y, w.q)
	out := ws.Tensor(engine.Narrow, q.Rows(), q.Cols())
	if n := in.absorbed; n > 0 {
		rows := n * m.cfg.NumHeads
		saved.folded = ws.Tensor(engine.Narrow, rows, m.cfg.DModel)
		saved.gathered = ws.Tensor(engine.Narrow, rows, m.cfg.DModel)
		saved.logNorm = ws.Tensor(engine.Wide, rows, 1)
		m.eng.ExpandHeads(saved.folded, m.rows(q, 0, n), w.k)
		m.eng.SharedAttentionForward(saved.gathered, saved.logNorm, saved.folded, in.memory, in.memorySegments)
		m.eng.ContractHeads(m.rows(out, 0, n), saved.gathered, w.v)
	}
	if n := q.Rows() - in.absorbed; n > 0 {
		if kv == nil {
			kv = m.linear(ws, engine.Narrow, in.rest, w.kv)
		}
		saved.kv = kv
		r := &saved.rest
		r.k, r.v = m.columns(ws, kv, 0), m.columns(ws, kv, 1)
		r.q, r.out = ws.View(q, in.absorbed, n, 0, q.Cols()), ws.View(out, in.absorbed, n, 0, q.Cols())
		r.logNorm = ws.Tensor(engine.Wide, n, m.cfg.NumHeads)
		m.eng.AttentionForward(r.out, r.logNorm, r.q, r.k, r.v, in.restSegments, nil, m.cfg.NumHeads)
	}
	return stream{norm.x, m.pend(out, w.o)}, saved
}

// crossAttentionBackward adds the sublayer's share to denc [ne, d_model], the gradient of the
// encoder's output. With below set it also turns dx into the gradient before the sublayer, which is
// not needed if only embeddings lie below.
func (m *Model) crossAttentionBackward(
	w *crossAttention,
	s *crossSaved,
	dx, denc engine.Tensor,
	in *crossInput,
	below bool,
) {
	m.tmp.Reset()
	dout := m.linearBackward(engine.Narrow, dx, w.o)
	dq := m.tmp.Tensor(engine.Narrow, dout.Rows(), dout.Cols())
	memory := 0
	if n := in.absorbed; n > 0 {
		memory = in.memory.Rows()
		dgathered := m.tmp.Tensor(engine.Narrow, s.gathered.Rows(), s.gathered.Cols())
		dfolded := m.tmp.Tensor(engine.Narrow, s.folded.Rows(), s.folded.Cols())
		m.eng.ExpandHeads(dgathered, m.rows(dout, 0, n), w.v)
		m.eng.SharedAttentionBackward(dfolded, m.rows(denc, 0, memory), dgathered, s.gathered, s.logNorm, s.folded,
			in.memory, in.memorySegments)
		if below {
			m.eng.ContractHeads(m.rows(dq, 0, n), dfolded, w.k)
		}
	}
	if n := dout.Rows() - in.absorbed; n > 0 {
		dkv := m.tmp.Tensor(engine.Narrow, s.kv.Rows(), s.kv.Cols())
		dk, dv := m.columns(m.tmp, dkv, 0), m.columns(m.tmp, dkv, 1)
		r := &s.rest
		m.eng.AttentionBackward(m.rows(dq, in.absorbed, n), dk, dv, m.rows(dout, in.absorbed, n), r.out, r.logNorm, r.q,
			r.k, r.v,
			in.restSegments, nil, m.cfg.NumHeads)
		m.eng.LinearBackward(m.rows(denc, memory, dkv.Rows()), dkv, w.kv, true)
	}
	if !below {
		return
	}
	dy := m.linearBackward(engine.Wide, dq, w.q)
	m.eng.NormBackward(dx, dy, s.norm.x, s.norm.r, w.norm)
}

// rows is a view of n of t's rows that lives until the sublayer is done.
func (m *Model) rows(t engine.Tensor, first, n int) engine.Tensor {
	return m.tmp.View(t, first, n, 0, t.Cols())
}
