package checkpoint

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// Names of the tensors in prompt.safetensors, and of the prompt in an adapter
// that PEFT wrote.
const (
	tensorA      = "A"
	tensorB      = "B"
	tensorPrompt = "prompt"
	tensorPEFT   = "prompt_embeddings"
)

// Prompt is a soft prompt of Length (c) vectors of Dim (e) numbers and, where
// it was learned as a product, its factors.
type Prompt struct {
	Length     int
	Dim        int
	Bottleneck int               // b; 0 without factors
	A, B       []float32         // e×b and b×c, row-major; nil without factors
	Embeddings []float32         // c×e, row-major: row i is virtual token i, (A·B)^T
	Metadata   map[string]string // free-form, as in a safetensors file
}

// Validate checks that the sizes agree and that every number is finite.
func (p Prompt) Validate() error {
	if p.Length <= 0 || p.Dim <= 0 {
		return fmt.Errorf("prompt of length %d and dimension %d, want both positive", p.Length, p.Dim)
	}
	if (p.A == nil) != (p.B == nil) || (p.A != nil) != (p.Bottleneck > 0) {
		return fmt.Errorf("prompt with bottleneck %d, %d numbers in A and %d in B: want all three or none", p.Bottleneck, len(p.A), len(p.B))
	}
	for _, t := range []struct {
		name string
		data []float32
		want int
	}{
		{tensorPrompt, p.Embeddings, p.Length * p.Dim},
		{tensorA, p.A, p.Dim * p.Bottleneck},
		{tensorB, p.B, p.Bottleneck * p.Length},
	} {
		if len(t.data) != t.want {
			return fmt.Errorf("tensor %s: %d numbers, want %d", t.name, len(t.data), t.want)
		}
		for i, v := range t.data {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return fmt.Errorf("tensor %s: number %d is %v, want a finite one", t.name, i, v)
			}
		}
	}
	return nil
}

// WritePrompt writes p to path as safetensors, atomically: "prompt" [c,e] and,
// where p has factors, "A" [e,b] and "B" [b,c].
func WritePrompt(path string, p Prompt) error {
	if err := p.Validate(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	tensors := []Tensor{F32(tensorPrompt, []int{p.Length, p.Dim}, p.Embeddings)}
	if p.A != nil {
		tensors = append(tensors,
			F32(tensorA, []int{p.Dim, p.Bottleneck}, p.A),
			F32(tensorB, []int{p.Bottleneck, p.Length}, p.B))
	}
	return Write(path, tensors, p.Metadata)
}

// ReadPrompt reads a prompt that WritePrompt wrote. It also accepts a file with
// "prompt" alone, with "A" and "B" alone, whose product it takes, and an
// adapter_model.safetensors of PEFT's prompt tuning, or its directory; all in
// F32, F16, BF16 or F64.
func ReadPrompt(path string) (Prompt, error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, adapterWeights)
	}
	f, err := Open(path)
	if err != nil {
		return Prompt{}, err
	}
	p, err := readPrompt(f)
	if err == nil && f.Has(tensorPEFT) {
		err = p.encoderRows(filepath.Dir(path))
	}
	if err == nil {
		err = p.Validate()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return Prompt{}, fmt.Errorf("read %s: %w", path, err)
	}
	return p, nil
}

func readPrompt(f *File) (Prompt, error) {
	p := Prompt{Metadata: f.Metadata()}
	rows := tensorPrompt
	if f.Has(tensorPEFT) {
		rows = tensorPEFT
	}
	factors := f.Has(tensorA) && f.Has(tensorB)
	if !f.Has(rows) && !factors {
		return p, fmt.Errorf("found the tensors %q, want %q, %q or both %q and %q", f.names, tensorPrompt, tensorPEFT, tensorA, tensorB)
	}
	if f.Has(tensorA) != f.Has(tensorB) {
		return p, fmt.Errorf("found the tensors %q, want both %q and %q or neither", f.names, tensorA, tensorB)
	}
	if f.Has(rows) {
		shape, data, err := readMatrix(f, rows)
		if err != nil {
			return p, err
		}
		p.Length, p.Dim, p.Embeddings = shape[0], shape[1], data
	}
	if !factors {
		return p, nil
	}
	shapeA, a, err := readMatrix(f, tensorA)
	if err != nil {
		return p, err
	}
	shapeB, b, err := readMatrix(f, tensorB)
	if err != nil {
		return p, err
	}
	if shapeA[1] != shapeB[0] {
		return p, fmt.Errorf("tensors A %v and B %v have no product: want [e b] and [b c]", shapeA, shapeB)
	}
	if p.Embeddings == nil {
		p.Length, p.Dim = shapeB[1], shapeA[0]
		p.Embeddings = product(a, b, shapeA[0], shapeA[1], shapeB[1])
	}
	if shapeA[0] != p.Dim || shapeB[1] != p.Length {
		return p, fmt.Errorf("tensors A %v and B %v do not make a prompt of shape [%d %d]", shapeA, shapeB, p.Length, p.Dim)
	}
	p.Bottleneck, p.A, p.B = shapeA[1], a, b
	return p, nil
}

// readMatrix returns a copy of a matrix, which outlives the file.
func readMatrix(f *File, name string) ([]int, []float32, error) {
	t, err := f.Tensor(name)
	if err != nil {
		return nil, nil, err
	}
	if len(t.Shape) != 2 || t.Shape[0] == 0 || t.Shape[1] == 0 {
		return nil, nil, fmt.Errorf("tensor %s: shape %v, want a matrix", name, t.Shape)
	}
	v, err := t.Float32()
	return t.Shape, slices.Clone(v), err
}

// product returns (A·B)^T, c×e, for A e×b and B b×c, summed in float64 in the
// order of the bottleneck: each product of float32s is exact there.
func product(a, b []float32, e, k, c int) []float32 {
	out := make([]float32, c*e)
	for i := range c {
		for j := range e {
			var sum float64
			for l := range k {
				sum += float64(float64(a[j*k+l]) * float64(b[l*c+i]))
			}
			out[i*e+j] = float32(sum)
		}
	}
	return out
}

// withMetadata returns a copy of p's metadata with extra added.
func (p Prompt) withMetadata(extra map[string]string) map[string]string {
	m := maps.Clone(p.Metadata)
	if m == nil {
		m = make(map[string]string)
	}
	maps.Copy(m, extra)
	return m
}
