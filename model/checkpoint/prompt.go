package checkpoint

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Names of the tensors in prompt.safetensors, and of the prompt in an adapter
// that PEFT wrote.
const (
	tensorA      = "A"
	tensorB      = "B"
	tensorPrompt = "prompt"
	tensorPEFT   = "prompt_embeddings"
)

// Prompt is a soft prompt of Length (c) vectors of Dim (e) numbers and, unless
// those numbers themselves were trained, the trained tensors that they are made of.
type Prompt struct {
	Length     int
	Dim        int
	Embeddings []float32         // c×e, row-major: row i is virtual token i
	Factors    []Factor          // sorted by name; nil if the embeddings themselves were trained
	Metadata   map[string]string // free-form, as in a safetensors file
}

// Factor is a trained tensor that the embeddings are made of, such as A and B
// of Decomposed Prompt Tuning; package prompt says how.
type Factor struct {
	Name  string
	Shape []int
	Data  []float32 // row-major
}

// Factor returns the factor of a name.
func (p Prompt) Factor(name string) (Factor, bool) {
	for _, f := range p.Factors {
		if f.Name == name {
			return f, true
		}
	}
	return Factor{}, false
}

// Validate checks that the sizes agree and that every number is finite.
func (p Prompt) Validate() error {
	if p.Length <= 0 || p.Dim <= 0 {
		return fmt.Errorf("prompt of length %d and dimension %d, want both positive", p.Length, p.Dim)
	}
	for _, t := range append([]Factor{{tensorPrompt, []int{p.Length, p.Dim}, p.Embeddings}}, p.Factors...) {
		want := 1
		for _, d := range t.Shape {
			want *= d
		}
		if len(t.Data) != want {
			return fmt.Errorf("tensor %s: %d numbers, want %d", t.Name, len(t.Data), want)
		}
		for i, v := range t.Data {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return fmt.Errorf("tensor %s: number %d is %v, want a finite one", t.Name, i, v)
			}
		}
	}
	for i, t := range p.Factors {
		if t.Name == tensorPrompt || t.Name == tensorPEFT || i > 0 && t.Name <= p.Factors[i-1].Name {
			return fmt.Errorf("tensor %s: want factors sorted by name, each once, and none of the embeddings' name",
				t.Name)
		}
	}
	return nil
}

// WritePrompt writes p to path as safetensors, atomically: "prompt" [c,e] and
// the factors under their names.
func WritePrompt(path string, p Prompt) error {
	if err := p.Validate(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	tensors := []Tensor{F32(tensorPrompt, []int{p.Length, p.Dim}, p.Embeddings)}
	for _, t := range p.Factors {
		tensors = append(tensors, F32(t.Name, t.Shape, t.Data))
	}
	return Write(path, tensors, p.Metadata)
}

// ReadPrompt reads a prompt that WritePrompt wrote. It also accepts a file with
// "prompt" alone, with "A" and "B" alone, whose product it takes, and an
// adapter_model.safetensors or adapter_model.bin of PEFT's prompt tuning, or its
// directory; all in F32, F16, BF16 or F64.
func ReadPrompt(path string) (Prompt, error) {
	var config *adapter
	if dir, ok := adapterDir(path); ok {
		var err error
		if config, err = readAdapterConfig(dir); err != nil {
			return Prompt{}, fmt.Errorf("read %s: %w", path, err)
		}
		if dir == path {
			if path, err = adapterFile(dir); err != nil {
				return Prompt{}, err
			}
		}
	}
	f, err := Open(path)
	if err != nil {
		return Prompt{}, err
	}
	p, err := readPrompt(f)
	if err == nil && f.Has(tensorPEFT) {
		err = p.encoderRows(config)
	}
	if err == nil {
		err = p.Validate()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return Prompt{}, fmt.Errorf("read %s: %w", path, err)
	}
	return p, nil
}

// adapterDir returns the directory of a PEFT adapter if path is a directory, or a file of the name
// that PEFT gives an adapter's weights.
func adapterDir(path string) (string, bool) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return path, true
	}
	base := filepath.Base(path)
	return filepath.Dir(path), base == adapterWeights || base == adapterTorch
}

// IsAdapter reports whether the directory dir has a file of a PEFT adapter.
func IsAdapter(dir string) bool {
	for _, name := range []string{adapterConfig, adapterWeights, adapterTorch} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// adapterFile returns the path of the weights of the adapter in dir. As in PEFT, safetensors win.
func adapterFile(dir string) (string, error) {
	for _, name := range []string{adapterWeights, adapterTorch} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("read %s: found neither %s nor %s, want a prompt or the directory of a PEFT adapter",
		dir, adapterWeights, adapterTorch)
}

func readPrompt(f *File) (Prompt, error) {
	p := Prompt{Metadata: f.Metadata()}
	rows := tensorPrompt
	if f.Has(tensorPEFT) {
		rows = tensorPEFT
	}

	// Which forms the file has: rows, A and B, or both.
	factors := f.Has(tensorA) && f.Has(tensorB)
	if !f.Has(rows) && !factors {
		return p, fmt.Errorf("found the tensors %q, want %q, %q or both %q and %q",
			f.names, tensorPrompt, tensorPEFT, tensorA, tensorB)
	}
	if f.Has(tensorA) != f.Has(tensorB) {
		return p, fmt.Errorf("found the tensors %q, want both %q and %q or neither", f.names, tensorA, tensorB)
	}
	if f.Has(rows) {
		m, err := readFactor(f, rows)
		if err == nil {
			err = m.wantMatrix()
		}
		if err != nil {
			return p, err
		}
		p.Length, p.Dim, p.Embeddings = m.Shape[0], m.Shape[1], m.Data
	}
	if rows == tensorPEFT {
		return p, nil
	}

	// Every tensor beside the rows is a factor, whatever the method.
	for _, name := range f.names {
		if name == tensorPrompt {
			continue
		}
		t, err := readFactor(f, name)
		if err != nil {
			return p, err
		}
		p.Factors = append(p.Factors, t)
	}
	slices.SortFunc(p.Factors, func(a, b Factor) int { return strings.Compare(a.Name, b.Name) })
	if !factors {
		return p, nil
	}

	// A and B have a product, which is the prompt if the file holds none and has its shape if it
	// does.
	a, _ := p.Factor(tensorA)
	b, _ := p.Factor(tensorB)
	if err := errors.Join(a.wantMatrix(), b.wantMatrix()); err != nil {
		return p, err
	}
	if a.Shape[1] != b.Shape[0] {
		return p, fmt.Errorf("tensors A %v and B %v have no product: want [e b] and [b c]", a.Shape, b.Shape)
	}
	if p.Embeddings == nil {
		p.Length, p.Dim = b.Shape[1], a.Shape[0]
		p.Embeddings = product(a.Data, b.Data, a.Shape[0], a.Shape[1], b.Shape[1])
	}
	if a.Shape[0] != p.Dim || b.Shape[1] != p.Length {
		return p, fmt.Errorf("tensors A %v and B %v do not make a prompt of shape [%d %d]",
			a.Shape, b.Shape, p.Length, p.Dim)
	}
	return p, nil
}

// readFactor returns a copy of a tensor, which outlives the file.
func readFactor(f *File, name string) (Factor, error) {
	t, err := f.Tensor(name)
	if err != nil {
		return Factor{}, err
	}
	v, err := t.Float32()
	return Factor{Name: name, Shape: t.Shape, Data: slices.Clone(v)}, err
}

func (t Factor) wantMatrix() error {
	if len(t.Shape) != 2 || t.Shape[0] == 0 || t.Shape[1] == 0 {
		return fmt.Errorf("tensor %s: shape %v, want a matrix", t.Name, t.Shape)
	}
	return nil
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
