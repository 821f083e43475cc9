package prompt

import (
	"fmt"
	"hash"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// transposition is the operation X (rows×cols) → X^T as a matrix of its own.
// Gorgonia's transposition only changes strides, which code that reads a value's
// memory would miss.
type transposition struct{ rows, cols int }

var _ gorgonia.SDOp = transposition{}

func transpose(n *gorgonia.Node, rows, cols int) (*gorgonia.Node, error) {
	return gorgonia.ApplyOp(transposition{rows, cols}, n)
}

func (t transposition) Arity() int                { return 1 }
func (t transposition) Type() hm.Type             { return hm.NewFnType(matrixType, matrixType) }
func (t transposition) DiffWRT(inputs int) []bool { return []bool{true} }
func (t transposition) ReturnsPtr() bool          { return false }
func (t transposition) CallsExtern() bool         { return false }
func (t transposition) OverwritesInput() int      { return -1 }
func (t transposition) WriteHash(h hash.Hash)     { fmt.Fprint(h, t.String()) }
func (t transposition) Hashcode() uint32          { return hashcode(t.String()) }
func (t transposition) String() string            { return fmt.Sprintf("Transpose(%d×%d)", t.rows, t.cols) }

func (t transposition) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) {
	return tensor.Shape{t.cols, t.rows}, nil
}

func (t transposition) Do(in ...gorgonia.Value) (gorgonia.Value, error) {
	x, err := floats(in[0], t.rows*t.cols)
	if err != nil {
		return nil, err
	}
	out := make([]float32, len(x))
	transposeInto(out, x, t.rows, t.cols)
	return tensor.New(tensor.WithShape(t.cols, t.rows), tensor.WithBacking(out)), nil
}

func (t transposition) SymDiff(_ gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	n, err := transpose(grad, t.cols, t.rows)
	return gorgonia.Nodes{n}, err
}

// ones is a constant matrix of ones.
func ones(rows, cols int) *gorgonia.Node { return filled(rows, cols, 1) }

// filled is a constant matrix of one number.
func filled(rows, cols int, v float32) *gorgonia.Node {
	data := make([]float32, rows*cols)
	for i := range data {
		data[i] = v
	}
	return gorgonia.NewConstant(tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data)),
		gorgonia.WithName(fmt.Sprintf("%v[%d %d]", v, rows, cols)))
}
