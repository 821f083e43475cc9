package prompt

import "gorgonia.org/gorgonia"

// plain is prompt tuning (Lester et al. 2021): the rows of the prompt themselves,
// "prompt" [c e].
var plain = method{
	tensors: func(c Config) []Tensor {
		return []Tensor{{Name: "prompt", Shape: []int{c.Length, c.Dim}}}
	},
	build: func(c Config, trained gorgonia.Nodes) (*gorgonia.Node, error) {
		return transpose(trained[0], c.Length, c.Dim)
	},
	start: func(_ Config, s Start, params [][]float32) error {
		s.rows("prompt", params[0])
		return nil
	},
}
