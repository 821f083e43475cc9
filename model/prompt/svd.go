package prompt

import (
	"errors"
	"fmt"

	"gorgonia.org/gorgonia"
)

// SVD is the name of the rank probe.
const SVD = "svd"

// rankProbe is the rank probe of Xiao et al. 2023, section 2.2: P = U·ReLU(Σ)·V, with
// a diagonal Σ (e×c). Only the parts that contribute to P are stored and trained:
// with r diagonal entries, by default all min(e,c), U's first r columns [e r], the
// diagonal [r] and V's first r rows [r c]. The further columns of the paper's U
// (e×e) are only multiplied with zeros of Σ and have no gradient.
var rankProbe = Method{
	Name:         SVD,
	Title:        "SVD probe",
	Summary:      "P = U·ReLU(Σ)·V, the paper's rank probe",
	DefaultStart: StartGaussian,
	Starts:       []string{StartGaussian, StartUniform, StartFile},
	Bottleneck: &Bottleneck{
		Meaning:     "the diagonal entries of svd's Σ",
		DefaultText: "all",
		Default:     func(dim, length int) int { return min(dim, length) },
		tensor:      "Sigma", axis: 0,
	},
	tensors: func(c Config) []Tensor {
		return []Tensor{
			{Name: "U", Shape: []int{c.Dim, c.Bottleneck}},
			{Name: "Sigma", Shape: []int{c.Bottleneck}},
			{Name: "V", Shape: []int{c.Bottleneck, c.Length}},
		}
	},
	build: func(c Config, trained gorgonia.Nodes) (*gorgonia.Node, error) {
		u, sigma, v := trained[0], trained[1], trained[2]
		rectified, err := gorgonia.Rectify(sigma)
		if err != nil {
			return nil, err
		}
		scale, err := gorgonia.Mul(rectified, ones(1, c.Length))
		if err != nil {
			return nil, err
		}
		scaled, err := gorgonia.HadamardProd(scale, v)
		if err != nil {
			return nil, err
		}
		return gorgonia.Mul(u, scaled)
	},
	start: func(_ Config, s Start, params [][]float32) error {
		if s.Rows != nil {
			return errors.New("method svd starts from random matrices, not from rows of a prompt")
		}
		s.draw("U", params[0])
		s.draw("Sigma", params[1])
		s.draw("V", params[2])
		for i, v := range params[1] { // the paper: "initialized with positive values along the diagonal"
			if v < 0 {
				params[1][i] = -v
			}
		}
		return nil
	},
	check: func(c Config) error {
		if most := min(c.Dim, c.Length); c.Bottleneck > most {
			return fmt.Errorf("bottleneck is %d, want at most %d: a diagonal of %d by %d has no more entries",
				c.Bottleneck, most, c.Dim, c.Length)
		}
		return nil
	},
	probe: func(c Config, params [][]float32, rows []float32) Probe {
		var p Probe
		for _, v := range params[1] {
			switch {
			case v > 0:
				p.Positive++
			case v < 0:
				p.Negative++
			}
		}
		_, values, _ := svdOf(rows, c.Length, c.Dim)
		p.Rank = rankOf(values, c.Length, c.Dim)
		return p
	},
}
