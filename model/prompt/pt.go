package prompt

import "gorgonia.org/gorgonia"

// PT is the name of prompt tuning.
const PT = "pt"

// promptTuning is prompt tuning (Lester et al. 2021): the rows of the prompt themselves,
// "prompt" [c e].
var promptTuning = Method{
	Name:         PT,
	Title:        "Prompt Tuning",
	Summary:      "prompt tuning: P itself",
	DefaultStart: StartVocabulary,
	Starts:       allStarts,
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
