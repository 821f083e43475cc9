package prompt

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dptune/dpt/model/checkpoint"
)

// rowsTensor is the name of the embeddings in files, and of the tensor of a
// method that trains the embeddings themselves.
const rowsTensor = "prompt"

// File returns the prompt that params make under c, for a prompt file: its
// embeddings and, as factors, the trained tensors.
func (c Config) File(params []float32, metadata map[string]string) (checkpoint.Prompt, error) {
	rows, err := Embeddings(c, params)
	if err != nil {
		return checkpoint.Prompt{}, err
	}
	p := checkpoint.Prompt{Length: c.Length, Dim: c.Dim, Embeddings: rows, Metadata: metadata}
	for _, t := range c.Tensors() {
		if t.Name != rowsTensor {
			data := params[t.Offset : t.Offset+t.Size()]
			p.Factors = append(p.Factors, checkpoint.Factor{Name: t.Name, Shape: t.Shape, Data: data})
		}
	}
	slices.SortFunc(p.Factors, func(a, b checkpoint.Factor) int { return strings.Compare(a.Name, b.Name) })
	return p, nil
}

// FromFile finds the method whose tensors a prompt file holds, and returns its
// configuration and parameters. A file with embeddings alone is "pt". It returns
// false if no method has the file's factors.
func FromFile(p checkpoint.Prompt) (c Config, params []float32, ok bool) {
	shapes := map[string][]int{}
	for _, f := range p.Factors {
		shapes[f.Name] = f.Shape
	}
	if len(shapes) == 0 {
		shapes[rowsTensor] = []int{p.Length, p.Dim}
	}
	if c, ok = detect(p.Dim, p.Length, shapes); !ok {
		return c, nil, false
	}
	for _, t := range c.Tensors() {
		data := p.Embeddings
		if f, ok := p.Factor(t.Name); ok {
			data = f.Data
		}
		params = append(params, data...)
	}
	return c, params, true
}

// Continue returns the parameters with which training under c starts from a
// prompt file: the file's own if it holds a prompt of c's method and sizes, else
// those that Init makes of its embeddings as Start.Rows.
func (c Config) Continue(p checkpoint.Prompt, s Start) ([]float32, error) {
	if p.Dim != c.Dim || p.Length != c.Length {
		return nil, fmt.Errorf("prompt is [%d %d], want [%d %d] (--prompt-length, d_model)",
			p.Length, p.Dim, c.Length, c.Dim)
	}
	have, params, ok := FromFile(p)
	if ok && have == c {
		return params, nil
	}
	if ok && have.Method == c.Method {
		return nil, fmt.Errorf("prompt of method %s has bottleneck %d, want %d (--bottleneck)",
			c.Method, have.Bottleneck, c.Bottleneck)
	}
	s.Rows = p.Embeddings
	return c.Init(s)
}
