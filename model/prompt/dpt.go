package prompt

import "gorgonia.org/gorgonia"

// DPT is the name of Decomposed Prompt Tuning.
const DPT = "dpt"

// decomposed is Decomposed Prompt Tuning (Xiao et al. 2023, section 3.1): P = A·B.
var decomposed = Method{
	Name:         DPT,
	Title:        "DPT",
	Summary:      "P = A·B",
	DefaultStart: StartGaussian,
	Starts:       allStarts,
	Bottleneck: &Bottleneck{
		Meaning:     "b of A·B",
		DefaultText: "10",
		Default:     fixed(10),
		tensor:      "A", axis: 1,
	},
	tensors: func(c Config) []Tensor {
		return []Tensor{
			{Name: "A", Shape: []int{c.Dim, c.Bottleneck}}, {Name: "B", Shape: []int{c.Bottleneck, c.Length}},
		}
	},
	build: func(_ Config, trained gorgonia.Nodes) (*gorgonia.Node, error) {
		return gorgonia.Mul(trained[0], trained[1])
	},
	start: func(c Config, s Start, params [][]float32) error {
		s.draw("A", params[0])
		s.draw("B", params[1])
		if s.Rows != nil {
			factor(s.Rows, c, params[0], params[1])
		}
		return nil
	},
}

// factor sets A (e×b) and B (b×c) to the factors of the product that is nearest
// to the rows of a prompt (c×e), in the Frobenius norm: the b largest singular
// triplets, each singular value shared equally between its two vectors. If the
// rows have a lower rank, A's further columns are zero and B's further rows keep
// the numbers drawn for them: the product equals the rows, and every number of A
// has a gradient.
func factor(rows []float32, c Config, a, b []float32) {
	left, values, right := svdOf(rows, c.Length, c.Dim)
	full := rankOf(values, c.Length, c.Dim)
	for k := range c.Bottleneck {
		if k >= full {
			for j := range c.Dim {
				a[j*c.Bottleneck+k] = 0
			}
			continue
		}
		share := sqrt(values[k])
		for j := range c.Dim {
			a[j*c.Bottleneck+k] = float32(float64(right[k][j] * share))
		}
		for i := range c.Length {
			b[k*c.Length+i] = float32(float64(left[k][i] * share))
		}
	}
}
