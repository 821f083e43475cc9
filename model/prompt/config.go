package prompt

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxSize bounds the number of trained numbers, so that a mistyped flag is an
// error rather than an allocation that fails.
const maxSize = 1 << 30

// Config says what a prompt is made of.
type Config struct {
	Method     string // one of Methods
	Dim        int    // e, the backbone's d_model
	Length     int    // c, the number of virtual tokens
	Bottleneck int    // b, the method's inner dimension; 0 where it has none
}

// Tensor is one trained tensor, row-major at Offset in the flat parameters.
type Tensor struct {
	Name   string
	Shape  []int // one or two dimensions
	Offset int
}

// Size returns the number of numbers in t.
func (t Tensor) Size() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Methods returns the names of the parametrizations, sorted.
func Methods() []string { return slices.Sorted(maps.Keys(methods)) }

// Known checks that there is a parametrization of a name.
func Known(method string) error {
	if _, ok := methods[method]; !ok {
		return fmt.Errorf("unknown method %q, want one of %s", method, strings.Join(Methods(), ", "))
	}
	return nil
}

// DefaultBottleneck is the inner dimension that a method's authors chose for
// prompts of length vectors of dim numbers, 0 where the method has none.
func DefaultBottleneck(method string, dim, length int) int {
	if m := methods[method]; m.bottleneck != nil {
		return m.bottleneck(dim, length)
	}
	return 0
}

// Validate checks that the method exists and that its sizes are possible.
func (c Config) Validate() error {
	if err := Known(c.Method); err != nil {
		return fmt.Errorf("prompt: %w", err)
	}
	m := methods[c.Method]
	type size struct {
		name  string
		value int
	}
	sizes := []size{{"dimension", c.Dim}, {"length", c.Length}}
	if m.bottleneck != nil {
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

// Tensors returns the trained tensors in the order of the flat parameters. For
// "dpt" they are A [e b] and B [b c]; see the package's documentation.
func (c Config) Tensors() []Tensor {
	out := methods[c.Method].tensors(c)
	offset := 0
	for i := range out {
		out[i].Offset = offset
		offset += out[i].Size()
	}
	return out
}

// Size returns the number of trained numbers.
func (c Config) Size() int {
	n := 0
	for _, t := range c.Tensors() {
		n += t.Size()
	}
	return n
}

// Detect finds the configuration whose trained tensors have exactly the given
// names and shapes, for prompts of length vectors of dim numbers. It says false
// where no method has them.
func Detect(dim, length int, shapes map[string][]int) (Config, bool) {
	for _, name := range Methods() {
		c := Config{Method: name, Dim: dim, Length: length}
		if m := methods[name]; m.bottleneck != nil {
			shape := shapes[m.inner]
			if len(shape) <= m.innerAt {
				continue
			}
			// The inner dimension is the one that the tensor does not share with the prompt.
			c.Bottleneck = shape[m.innerAt]
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
