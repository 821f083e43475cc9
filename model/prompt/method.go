package prompt

import "gorgonia.org/gorgonia"

// shape names a trained matrix of a method and says its size.
type shape struct {
	name       string
	rows, cols int
}

// method is a parametrization: the matrices that are trained, and the graph
// that makes P (e×c) of them.
type method struct {
	shapes func(c Config) []shape
	build  func(c Config, trained gorgonia.Nodes) (*gorgonia.Node, error)
}

var methods = map[string]method{
	"dpt": {
		shapes: func(c Config) []shape {
			return []shape{{"A", c.Dim, c.Bottleneck}, {"B", c.Bottleneck, c.Length}}
		},
		build: func(_ Config, trained gorgonia.Nodes) (*gorgonia.Node, error) {
			return gorgonia.Mul(trained[0], trained[1])
		},
	},
}
