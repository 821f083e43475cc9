// Package engine is the contract between a transformer and the hardware that runs it.
//
// A model (package t5) is written once, as a sequence of the ops of Engine. An engine implements
// them: portable in pure Go, others on vendor libraries and devices. An engine knows matrices, rows
// and segments; it does not know T5.
//
// # Values
//
// Activations are Tensors: row-major matrices whose rows are tokens. There is no batch axis and no
// padding: a micro-batch is one ragged matrix, all rows of its first example, then all rows of its
// second, and so on. Only attention knows where examples begin and end, from Segments. Frozen
// weights are Linear, Table, Gain and Bias handles: an engine lays them out once, at load, as its
// kernels want them, and never sees a gradient for them.
//
// # Memory
//
// Tensors, Views, Masks, Indexes and Segments come from a Workspace and live until it is released
// or reset, so that a step allocates nothing when it runs again. The contents of a fresh Tensor are
// undefined.
//
// # Bits
//
// The rows that an op computes depend on nothing but their own inputs: not on the rows beside them,
// not on how many there are, not on the number of threads, not on what ran before or what a
// workspace held. Only ops whose definition sums over rows (EmbedBackward; the key and value
// gradients of AttentionBackward and SharedAttentionBackward, within one segment) combine rows, and
// they do it in a fixed order.
//
// # Errors
//
// Shapes that do not fit are a mistake of the caller and panic. Failures of a device surface at the
// next synchronization: Download and Argmax return them. A method that can fail because of a user's
// input (no memory for the weights) returns an error.
//
// An Engine and everything made by it are used by one goroutine at a time.
package engine

// Precision is the purpose of a Tensor, by which an engine may choose how to store it.
type Precision int

const (
	// Wide tensors hold the residual stream, gradients of it, statistics and logits: float32 or
	// better.
	Wide Precision = iota
	// Narrow tensors are operands of matrix products and may be stored in 16 bits.
	Narrow
)

// Tensor is a matrix in an engine's memory.
type Tensor interface {
	Rows() int
	Cols() int
}

// Index is a vector of int32 in an engine's memory: token ids or row numbers.
type Index interface {
	Len() int
}

// Mask is a matrix of bits in an engine's memory.
type Mask interface {
	Rows() int
	Cols() int
}

// Segments tells attention which rows belong together.
type Segments interface {
	// Len is the number of segments.
	Len() int
}

// Span is a run of Len consecutive rows of a tensor, from row Start.
type Span struct{ Start, Len int }

// SegmentSpec describes the segments of one attention call: in segment s the query rows Q[s] see
// the key and value rows KV[s].
//
// Query row i of a segment stands at position i + Offset[s] (Offset nil: 0), key row j at position
// j. Their distance is key position minus query position; with Causal a query sees keys of distance
// ≤ 0 only. Every segment has at least one query, and every query sees at least one key. Query
// spans do not overlap, nor do the key spans of a call whose gradient is taken.
type SegmentSpec struct {
	Q, KV  []Span
	Offset []int
	Causal bool
}

// Linear is a frozen weight W [out, in]: y = x·Wᵀ.
type Linear interface {
	Out() int
	In() int
}

// LinearSpec describes a frozen weight to Engine.NewLinear.
type LinearSpec struct {
	In int
	// Weights are stacked along the output: each is row-major [its rows, In]. Query, key and value
	// projections become one product this way. They are copied.
	Weights [][]float32
	// SparseInput is a hint that many elements of x are zero because x comes out of a ReLU.
	SparseInput bool
}

// Heads is a frozen weight with one block W_h [d, in] per head: the rows of a projection to
// heads·d columns.
type Heads interface {
	Heads() int
	Dim() int // d
	In() int
}

// Table is a frozen embedding table [rows, cols].
type Table interface {
	Rows() int
	Cols() int
}

// Gain is the frozen scale of a norm.
type Gain interface {
	Len() int
}

// Bias is a frozen additive attention bias per head and distance.
type Bias interface {
	Heads() int
}

// Workspace hands out tensors in the manner of a stack.
type Workspace interface {
	// Tensor returns a rows × cols matrix with undefined contents. Either may be 0.
	Tensor(p Precision, rows, cols int) Tensor
	// View returns the rows×cols block of t whose first element is (row, col). It shares t's
	// memory.
	View(t Tensor, row, rows, col, cols int) Tensor
	// Mask returns a rows × cols matrix of bits with undefined contents.
	Mask(rows, cols int) Mask
	// Index copies ids into the engine's memory.
	Index(ids []int32) Index
	// Segments prepares spec, which is copied, for any number of attention calls. Those check the
	// spans against their tensors.
	Segments(spec SegmentSpec) Segments
	// Mark notes the current state; Release(mark) takes back everything handed out since. Marks
	// nest.
	Mark() int
	Release(mark int)
	// Reset takes everything back and forgets all marks.
	Reset()
}

// Engine runs ops. An XBackward op takes the gradient of a scalar loss with respect to XForward's
// result, named d…, and what XForward saved. Unless an op's comment says otherwise, results
// overwrite their destination, which must not overlap a source.
type Engine interface {
	// Name describes the engine for logs and reports: its name, the dtype of products and further
	// details, separated by slashes.
	Name() string
	// Numerics identifies what decides the bits of results: engines of one build with equal
	// Numerics that hold weights of equal shapes compute equal bits. It starts as Name does, with
	// the engine's name and the dtype (f32, f64 or bf16). Neither the number of threads nor the ops
	// that ran change it; new weights may, so ask once they are loaded.
	//
	// A wrapper around another engine returns the inner one's if it computes the same bits, and
	// appends a mark to it if not.
	Numerics() string
	// Close ends the engine's goroutines and frees its memory.
	Close() error

	NewWorkspace() Workspace

	// NewLinear packs frozen weights.
	NewLinear(spec LinearSpec) (Linear, error)
	// NewHeads copies the row-major [heads·d, in] weight w, d = len(w)/(heads·in).
	NewHeads(heads, in int, w []float32) (Heads, error)
	// NewTable copies a row-major [rows, cols] embedding table.
	NewTable(rows, cols int, w []float32) (Table, error)
	// TableLinear returns the table as the weight of an output projection, y = x·tableᵀ. The
	// memory is shared if the engine can do so.
	TableLinear(t Table) (Linear, error)
	NewGain(w []float32) (Gain, error)
	// NewBias copies a bias table: values[h*(hi-lo+1) + d-lo] is added to head h's scores at
	// distance d in [lo, hi]. Distances outside use the nearest end. lo ≤ 0 ≤ hi.
	NewBias(heads, lo, hi int, values []float32) (Bias, error)

	// Upload copies src, row-major, into all of dst.
	Upload(dst Tensor, src []float32)
	// Download waits for src and copies it row-major into dst, which holds exactly its elements.
	Download(dst []float64, src Tensor) error
	// Zero sets all of t to 0.
	Zero(t Tensor)
	// Scale multiplies all of t by s.
	Scale(t Tensor, s float64)

	// EmbedForward: dst [n,e]; row i is row ids[i] of table [v,e], or, for ids[i] < 0, row ^ids[i]
	// of prompt [c,e] (which may be nil when no id is negative). Saves nothing.
	EmbedForward(dst Tensor, table Table, prompt Tensor, ids Index)
	// EmbedBackward: dprompt [c,m] += rows of dx [n,m]; in order of i, row i with ids[i] < 0 is
	// added to row ^ids[i]. The table gets no gradient. m is free, so that any row-wise quantity
	// can be summed over the places of a prompt row.
	EmbedBackward(dprompt, dx Tensor, ids Index)

	// GatherRows: dst [n,m] row i = src row rows[i]. ScatterRows: dst row rows[i] = src [n,m] row
	// i; rows are distinct.
	GatherRows(dst, src Tensor, rows Index)
	ScatterRows(dst, src Tensor, rows Index)

	// NormForward: y [n,e] = x·r ∘ g with r [n,1] = 1/sqrt(mean(x²)+eps), T5's RMS norm.
	// Backward needs x and r.
	NormForward(y, r, x Tensor, g Gain, eps float64)
	// AddNormForward: sum [n,e] = x + delta, then NormForward(y, r, sum, g, eps). sum may be x
	// itself.
	AddNormForward(sum, y, r, x, delta Tensor, g Gain, eps float64)
	// NormBackward: dx [n,e] += gradient through the norm of dy [n,e]. dx holds the gradient of the
	// residual branch before, of the whole sublayer's input after.
	NormBackward(dx, dy, x, r Tensor, g Gain)

	// LinearForward: y [n,out] = x [n,in]·Wᵀ. Saves nothing: a frozen layer's backward needs
	// only its weight.
	LinearForward(y, x Tensor, w Linear)
	// LinearBackward: dx [n,in] = dy [n,out]·W, added to dx if accumulate is set.
	LinearBackward(dx, dy Tensor, w Linear, accumulate bool)

	// AttentionForward: within each segment and head h (the h-th of `heads` equal column groups),
	// out = softmax(q·kᵀ + bias)·v, scores not scaled, as in T5. q, out [nq, heads·d], k, v
	// [nk, heads·d], bias may be nil. lse [nq, heads] becomes the log of the softmax denominators.
	// Backward needs q, k, v, out and lse.
	AttentionForward(out, lse, q, k, v Tensor, seg Segments, bias Bias, heads int)
	// AttentionBackward: dq, dk, dv from dout [nq, heads·d]. Rows of dk and dv outside every
	// segment are left alone.
	AttentionBackward(dq, dk, dv, dout, out, lse, q, k, v Tensor, seg Segments, bias Bias, heads int)

	// ExpandHeads: y [n·heads, in]; row i·heads+h = x[i, h·d:(h+1)·d]·W_h for x [n, heads·d].
	// ContractHeads: y [n, heads·d]; y[i, h·d:(h+1)·d] = x[i·heads+h]·W_hᵀ for x [n·heads,
	// in]. Each is the other's backward and saves nothing.
	ExpandHeads(y, x Tensor, w Heads)
	ContractHeads(y, x Tensor, w Heads)

	// SharedAttentionForward is attention with one head whose keys and values are the same rows:
	// within each segment out = softmax(q·kvᵀ)·kv, without bias. q, out [nq, m], kv [nk, m],
	// lse [nq, 1] as in AttentionForward. seg is not causal. Backward needs q, kv, out and lse.
	SharedAttentionForward(out, lse, q, kv Tensor, seg Segments)
	// SharedAttentionBackward: dq from dout [nq, m]; dkv += the gradient of kv in both its parts.
	SharedAttentionBackward(dq, dkv, dout, out, lse, q, kv Tensor, seg Segments)

	// ReLUForward: y = max(x, 0). y may be x. positive, unless it is nil, becomes the mask of
	// x > 0, which is all that backward needs.
	ReLUForward(y, x Tensor, positive Mask)
	// ReLUBackward: dx = dy where positive, else 0. dx may be dy.
	ReLUBackward(dx, dy Tensor, positive Mask)
	// GatedGELUForward: y [n,f] = gelu(x[:, :f]) ∘ x[:, f:] for x [n,2f], with the tanh form of
	// GELU. Backward needs x.
	GatedGELUForward(y, x Tensor)
	// GatedGELUBackward: dx [n,2f] from dy [n,f].
	GatedGELUBackward(dx, dy, x Tensor)
	// GatedSiLUForward: y [n,f] = silu(x[:, :f]) ∘ x[:, f:] for x [n,2f], with
	// silu(v) = v / (1 + exp(−v)). Backward needs x.
	GatedSiLUForward(y, x Tensor)
	// GatedSiLUBackward: dx [n,2f] from dy [n,f].
	GatedSiLUBackward(dx, dy, x Tensor)

	// CrossEntropyForward: for logits [n,v], lse [n,1] = log Σ exp(logits[i]) and
	// loss [n,1] = lse − logits[i, targets[i]].
	CrossEntropyForward(loss, lse, logits Tensor, targets Index)
	// CrossEntropyBackward: dlogits = softmax(logits) − onehot(targets), the gradient of the sum
	// of losses. dlogits may be logits.
	CrossEntropyBackward(dlogits, logits, lse Tensor, targets Index)

	// Argmax waits for logits [n,v] and writes the column of each row's first maximum to dst [n];
	// -1 for a row that holds a NaN.
	Argmax(dst []int32, logits Tensor) error
}

// Observer is an Engine that is told which part of a computation the next ops belong to, so that it
// can measure the parts.
type Observer interface {
	// Part names the part that begins; "" ends the last one.
	Part(name string)
}
