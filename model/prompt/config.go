package prompt

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/dptune/dpt/model/prompt/gauss"
)

// maxSize bounds the number of trained numbers, so that a mistyped flag is an
// error rather than an allocation that fails.
const maxSize = 1 << 30

// Config says what a prompt is made of.
type Config struct {
	Method     string // "dpt"
	Dim        int    // e, the backbone's d_model
	Length     int    // c, the number of virtual tokens
	Bottleneck int    // b, the inner dimension of the product
}

// Tensor is one trained matrix, row-major at Offset in the flat parameters.
type Tensor struct {
	Name   string
	Shape  []int
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

// Validate checks that the method exists and that its sizes are possible.
func (c Config) Validate() error {
	if _, ok := methods[c.Method]; !ok {
		return fmt.Errorf("prompt: unknown method %q, want one of %s", c.Method, strings.Join(Methods(), ", "))
	}
	for _, d := range []struct {
		name  string
		value int
	}{{"dimension", c.Dim}, {"length", c.Length}, {"bottleneck", c.Bottleneck}} {
		if d.value < 1 || d.value > maxSize {
			return fmt.Errorf("prompt: %s is %d, want a number from 1 to %d", d.name, d.value, maxSize)
		}
	}
	size := 0
	for _, s := range append(methods[c.Method].shapes(c), shape{name: "P", rows: c.Dim, cols: c.Length}) {
		if s.rows > maxSize/s.cols || size > maxSize-s.rows*s.cols {
			return fmt.Errorf("prompt: %+v has more than %d numbers", c, maxSize)
		}
		size += s.rows * s.cols
	}
	return nil
}

// Tensors returns the trained matrices in the order of the flat parameters. For
// "dpt" they are A [e b] and B [b c].
func (c Config) Tensors() []Tensor {
	var out []Tensor
	offset := 0
	for _, s := range methods[c.Method].shapes(c) {
		out = append(out, Tensor{Name: s.name, Shape: []int{s.rows, s.cols}, Offset: offset})
		offset += s.rows * s.cols
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

// Init returns fresh parameters: every number drawn from N(0, std²), each
// matrix from a stream of its own. They depend on the seed, on std and on the
// matrices' names and sizes alone, and are the same on every platform. It
// panics if c is not valid or std is not a finite number.
func (c Config) Init(seed uint64, std float64) []float32 {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	if math.IsNaN(std) || math.IsInf(std, 0) {
		panic(fmt.Errorf("prompt: standard deviation %v of the initial numbers, want a finite number", std))
	}
	params := make([]float32, c.Size())
	for _, t := range c.Tensors() {
		gauss.New(seed, "prompt/"+t.Name).Fill(params[t.Offset:t.Offset+t.Size()], std)
	}
	return params
}
