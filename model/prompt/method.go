package prompt

import "gorgonia.org/gorgonia"

// method is a parametrization: the tensors that are trained, how they start,
// and the graph that makes P (e×c) of them.
type method struct {
	// tensors lists the trained tensors; their offsets are filled in by Config.Tensors.
	tensors func(c Config) []Tensor
	// build makes P. trained has a node for each tensor, a matrix; a tensor of one dimension n is n×1.
	build func(c Config, trained gorgonia.Nodes) (*gorgonia.Node, error)
	// start fills the parameters, a slice a tensor.
	start func(c Config, s Start, params [][]float32) error

	// bottleneck is the default inner dimension; nil where the method has none.
	bottleneck func(dim, length int) int
	// inner and innerAt name the tensor and its dimension by which Detect knows the bottleneck.
	inner   string
	innerAt int
	// check refuses sizes that the method cannot have; nil where all will do.
	check func(c Config) error
}

var methods = map[string]method{"dpt": decomposed, "pt": plain, "respt": residual, "svd": rankProbe}

// fixed is a default that does not depend on the prompt.
func fixed(n int) func(int, int) int { return func(int, int) int { return n } }
