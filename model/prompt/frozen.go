package prompt

import (
	"fmt"
	"hash"
	"hash/fnv"
	"runtime/debug"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Loss runs the frozen backbone. prompt is c×e row-major, a row per virtual
// token, and may be read only until Loss returns. grad is the gradient of loss
// with respect to prompt in the same layout; it is copied before the next call.
type Loss func(prompt []float32) (loss float64, grad []float32, err error)

// frozen is the operation P (e×c) → loss. One run of it computes the loss and
// the gradient with respect to P; frozenGrad hands the latter out.
type frozen struct {
	dim, length int

	loss   Loss // set during a run
	value  float64
	grad   []float32 // c×e, from loss
	err    error     // of loss: gorgonia would drop the chain of wrapped errors
	prompt []float32 // c×e, for loss to read
}

var (
	_ gorgonia.SDOp = (*frozen)(nil)
	_ gorgonia.Op   = frozenGrad{}
)

func (f *frozen) Arity() int { return 1 }

func (f *frozen) Type() hm.Type {
	return hm.NewFnType(matrixType, tensor.Float32)
}

func (f *frozen) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) {
	return tensor.ScalarShape(), nil
}

// Do calls the loss function on P transposed. Gorgonia runs it on a goroutine of
// its own, whose panics it must recover itself.
func (f *frozen) Do(in ...gorgonia.Value) (out gorgonia.Value, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("prompt: the loss function panicked: %v\n%s", r, debug.Stack())
		}
		f.err = err
	}()
	p, err := floats(in[0], f.dim*f.length)
	if err != nil {
		return nil, err
	}
	transposeInto(f.prompt, p, f.dim, f.length)
	value, grad, err := f.loss(f.prompt)
	if err != nil {
		return nil, err
	}
	if len(grad) != f.dim*f.length {
		return nil, fmt.Errorf(
			"prompt: gradient of %d numbers from the loss function, want %d for %d virtual tokens of %d",
			len(grad), f.dim*f.length, f.length, f.dim)
	}
	f.value, f.grad = value, grad
	return gorgonia.NewF32(float32(value)), nil
}

func (f *frozen) DiffWRT(inputs int) []bool { return []bool{true} }

// SymDiff returns the node dLoss/dP. It takes the loss as an input, so that it
// runs after it.
func (f *frozen) SymDiff(in gorgonia.Nodes, output, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	n, err := gorgonia.ApplyOp(frozenGrad{f}, in[0], output, grad)
	return gorgonia.Nodes{n}, err
}

func (f *frozen) ReturnsPtr() bool      { return false }
func (f *frozen) CallsExtern() bool     { return false }
func (f *frozen) OverwritesInput() int  { return -1 }
func (f *frozen) WriteHash(h hash.Hash) { fmt.Fprint(h, f.String()) }
func (f *frozen) Hashcode() uint32      { return hashcode(f.String()) }
func (f *frozen) String() string        { return fmt.Sprintf("Frozen(%d×%d)", f.dim, f.length) }

// frozenGrad is the operation (P, loss, dOut) → dOut·dLoss/dP, e×c.
type frozenGrad struct{ *frozen }

func (g frozenGrad) Arity() int { return 3 }

func (g frozenGrad) Type() hm.Type {
	return hm.NewFnType(matrixType, tensor.Float32, tensor.Float32, matrixType)
}

func (g frozenGrad) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) {
	return tensor.Shape{g.dim, g.length}, nil
}

func (g frozenGrad) Do(in ...gorgonia.Value) (gorgonia.Value, error) {
	up, err := floats(in[2], 1)
	if err != nil {
		return nil, err
	}
	out := make([]float32, g.dim*g.length)
	transposeInto(out, g.grad, g.length, g.dim)
	for i := range out {
		out[i] *= up[0]
	}
	return tensor.New(tensor.WithShape(g.dim, g.length), tensor.WithBacking(out)), nil
}

func (g frozenGrad) WriteHash(h hash.Hash) { fmt.Fprint(h, g.String()) }
func (g frozenGrad) Hashcode() uint32      { return hashcode(g.String()) }
func (g frozenGrad) String() string        { return "Grad" + g.frozen.String() }

var matrixType = gorgonia.TensorType{Dims: 2, Of: tensor.Float32}

func hashcode(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()
}

// floats returns the n numbers of a value.
func floats(v gorgonia.Value, n int) ([]float32, error) {
	switch d := v.Data().(type) {
	case []float32:
		if len(d) == n {
			return d, nil
		}
		return nil, fmt.Errorf("prompt: value of %d numbers, want %d", len(d), n)
	case float32: // how gorgonia hands out a single number
		if n == 1 {
			return []float32{d}, nil
		}
	}
	return nil, fmt.Errorf("prompt: value is %T, want %d float32s", v.Data(), n)
}

// transposeInto writes the cols×rows transpose of the rows×cols matrix src.
func transposeInto(dst, src []float32, rows, cols int) {
	for i := range rows {
		for j, v := range src[i*cols : (i+1)*cols] {
			dst[j*rows+i] = v
		}
	}
}
