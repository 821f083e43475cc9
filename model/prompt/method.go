package prompt

import (
	"fmt"
	"slices"
	"strings"

	"gorgonia.org/gorgonia"
)

// Method is a parametrization of a prompt: its trained tensors, their start and the graph that
// makes P of them, and the description by which the rest of the program offers, starts, probes and
// reports it. Each method has a file of its own in this package and a place in registry.
type Method struct {
	Name    string // as flags, files and results name it
	Title   string // as tables and figures print it
	Summary string // what is trained, in a few words for a help text

	// DefaultStart is the one of Starts that the method's authors chose.
	DefaultStart string
	// Starts are the sources of the first numbers that the method can use, of the Start constants.
	Starts []string

	// Bottleneck describes the inner dimension; nil if the method has none.
	Bottleneck *Bottleneck

	// tensors lists the trained tensors; Config.Tensors fills in their offsets.
	tensors func(c Config) []Tensor
	// build makes P (e×c). trained has a matrix for each tensor; a tensor of one dimension n is
	// n×1.
	build func(c Config, trained gorgonia.Nodes) (*gorgonia.Node, error)
	// start fills the parameters, a slice per tensor.
	start func(c Config, s Start, params [][]float32) error
	// check returns an error about sizes that the method cannot have; nil if it can have all.
	check func(c Config) error
	// probe looks at parameters, a slice per tensor, and the prompt that they make, c×e; nil if
	// the method is not probed.
	probe func(c Config, params [][]float32, rows []float32) Probe
}

// Bottleneck describes a method's inner dimension, Config.Bottleneck.
type Bottleneck struct {
	Meaning     string // the part of the method whose size it is, for a help text
	DefaultText string // Default in words, for a help text

	// Default is what the method's authors chose for prompts of length vectors of dim numbers.
	Default func(dim, length int) int

	// FromFile finds the inner dimension as this axis of this tensor.
	tensor string
	axis   int
}

// registry lists the methods in the order in which the paper's tables and figures show them.
var registry = []*Method{&promptTuning, &residual, &decomposed, &rankProbe}

// Methods returns the methods in the order in which tables and figures show them.
func Methods() []Method {
	list := make([]Method, len(registry))
	for i, m := range registry {
		list[i] = *m
	}
	return list
}

// Names returns the names of the methods, sorted.
func Names() []string {
	var names []string
	for _, m := range registry {
		names = append(names, m.Name)
	}
	slices.Sort(names)
	return names
}

// Lookup returns the method of a name.
func Lookup(name string) (Method, error) {
	m := find(name)
	if m == nil {
		return Method{}, fmt.Errorf("unknown method %q, want one of %s", name, strings.Join(Names(), ", "))
	}
	return *m, nil
}

// find returns the method of a name, nil if there is none.
func find(name string) *Method {
	for _, m := range registry {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// DefaultBottleneck is the inner dimension that a method's authors chose for
// prompts of length vectors of dim numbers, 0 if the method has none.
func DefaultBottleneck(method string, dim, length int) int {
	if m := find(method); m != nil && m.Bottleneck != nil {
		return m.Bottleneck.Default(dim, length)
	}
	return 0
}

// fixed is a default that does not depend on the prompt.
func fixed(n int) func(int, int) int { return func(int, int) int { return n } }
