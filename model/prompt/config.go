package prompt

import (
	"fmt"
	"maps"
	"slices"
)

// maxSize bounds the number of trained numbers, so that a mistyped flag is an
// error rather than an allocation that fails.
const maxSize = 1 << 30

// Config is a method with its sizes: it determines the trained tensors of a prompt.
type Config struct {
	Method     string // the name of a Method
	Dim        int    // e, the backbone's d_model
	Length     int    // c, the number of virtual tokens
	Bottleneck int    // b, the method's inner dimension; 0 if it has none
}

// Tensor is one trained tensor, row-major at Offset in the flat parameters.
type Tensor struct {
	Name   string
	Shape  []int // one or two dimensions
	Offset int
}

// Size returns the number of elements of t.
func (t Tensor) Size() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Validate checks that the method exists and that its sizes are possible.
func (c Config) Validate() error {
	m, err := Lookup(c.Method)
	if err != nil {
		return fmt.Errorf("prompt: %w", err)
	}

	// Each size by itself.
	type size struct {
		name  string
		value int
	}
	sizes := []size{{"dimension", c.Dim}, {"length", c.Length}}
	if m.Bottleneck != nil {
		sizes = append(sizes, size{"bottleneck", c.Bottleneck})
	} else if c.Bottleneck != 0 {
		return fmt.Errorf("prompt: bottleneck is %d, want 0: method %s has none", c.Bottleneck, c.Method)
	}
	for _, d := range sizes {
		if d.value < 1 || d.value > maxSize {
			return fmt.Errorf("prompt: %s is %d, want a number from 1 to %d", d.name, d.value, maxSize)
		}
	}
	if m.check != nil {
		if err := m.check(c); err != nil {
			return fmt.Errorf("prompt: %w", err)
		}
	}

	// All tensors and the prompt together.
	total := 0
	for _, t := range append(m.tensors(c), Tensor{Name: "P", Shape: []int{c.Dim, c.Length}}) {
		n := 1
		for _, d := range t.Shape {
			if n > maxSize/d {
				return fmt.Errorf("prompt: %+v has more than %d numbers", c, maxSize)
			}
			n *= d
		}
		if total > maxSize-n {
			return fmt.Errorf("prompt: %+v has more than %d numbers", c, maxSize)
		}
		total += n
	}
	return nil
}

// Tensors returns the trained tensors of a valid configuration in the order of the flat parameters.
// For "dpt" they are A [e b] and B [b c]; see the package's documentation.
func (c Config) Tensors() []Tensor {
	out := find(c.Method).tensors(c)
	offset := 0
	for i := range out {
		out[i].Offset = offset
		offset += out[i].Size()
	}
	return out
}

// split cuts flat parameters into those of each tensor.
func (c Config) split(params []float32) [][]float32 {
	var parts [][]float32
	for _, t := range c.Tensors() {
		parts = append(parts, params[t.Offset:t.Offset+t.Size()])
	}
	return parts
}

// Size returns the number of trained numbers.
func (c Config) Size() int {
	n := 0
	for _, t := range c.Tensors() {
		n += t.Size()
	}
	return n
}

// detect finds the configuration whose trained tensors have exactly the given
// names and shapes, for prompts of length vectors of dim numbers. It returns
// false if no method has them.
func detect(dim, length int, shapes map[string][]int) (Config, bool) {
	for _, m := range registry {
		c := Config{Method: m.Name, Dim: dim, Length: length}
		if b := m.Bottleneck; b != nil {
			shape := shapes[b.tensor]
			if len(shape) <= b.axis {
				continue
			}
			c.Bottleneck = shape[b.axis]
		}
		if c.Validate() != nil {
			continue
		}
		want := map[string][]int{}
		for _, t := range c.Tensors() {
			want[t.Name] = t.Shape
		}
		if maps.EqualFunc(want, shapes, slices.Equal) {
			return c, true
		}
	}
	return Config{}, false
}
