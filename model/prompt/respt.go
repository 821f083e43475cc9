package prompt

import (
	"math"

	"gorgonia.org/gorgonia"
)

// normEpsilon is PyTorch's default of LayerNorm, which the authors use.
const normEpsilon = 1e-5

// ResPT is the name of residual prompt tuning.
const ResPT = "respt"

// residual is residual prompt tuning (Razdaibiedina et al. 2023) with the shared
// MLP of their code: each row x of "embeddings" [c e] becomes
//
//	x + LayerNorm(up·ReLU(down·x + down's bias) + up's bias)
//
// with "mlp.down" e→m, "mlp.up" m→e and m the bottleneck. Weights are [out in].
var residual = Method{
	Name:         ResPT,
	Title:        "Residual PT",
	Summary:      "residual prompt tuning: an MLP on P",
	DefaultStart: StartVocabulary,
	Starts:       allStarts,
	Bottleneck: &Bottleneck{
		Meaning:     "the width of respt's MLP",
		DefaultText: "400",
		Default:     fixed(400),
		tensor:      "mlp.down.bias", axis: 0,
	},
	tensors: residualTensors,
	build:   buildResidual,
	start: func(c Config, s Start, params [][]float32) error {
		s.rows("embeddings", params[0])
		// PyTorch's initialization of a linear layer and a layer norm.
		for i, t := range residualTensors(c)[1:5] {
			in := c.Dim
			if i >= 2 {
				in = c.Bottleneck
			}
			s.stream(t.Name).FillUniform(params[1+i], 1/math.Sqrt(float64(in)))
		}
		for i := range params[5] {
			params[5][i] = 1
		}
		return nil
	},
}

func residualTensors(c Config) []Tensor {
	return []Tensor{
		{Name: "embeddings", Shape: []int{c.Length, c.Dim}},
		{Name: "mlp.down.weight", Shape: []int{c.Bottleneck, c.Dim}},
		{Name: "mlp.down.bias", Shape: []int{c.Bottleneck}},
		{Name: "mlp.up.weight", Shape: []int{c.Dim, c.Bottleneck}},
		{Name: "mlp.up.bias", Shape: []int{c.Dim}},
		{Name: "mlp.norm.weight", Shape: []int{c.Dim}},
		{Name: "mlp.norm.bias", Shape: []int{c.Dim}},
	}
}

// buildResidual works on columns, like P: to add a bias n×1 to all c columns, it
// adds the bias's product with a row of ones.
func buildResidual(c Config, trained gorgonia.Nodes) (p *gorgonia.Node, err error) {
	b := &builder{}
	down, downBias, up, upBias, gain, shift := trained[1], trained[2], trained[3], trained[4], trained[5], trained[6]
	all := ones(1, c.Length)
	mean := filled(1, c.Dim, 1/float32(c.Dim)) // mean·X is the mean of each column
	spread := ones(c.Dim, 1)                   // spread·row repeats a row e times

	x := b.do(transpose(trained[0], c.Length, c.Dim))
	hidden := b.do(gorgonia.Rectify(b.add(b.mul(down, x), b.mul(downBias, all))))
	y := b.add(b.mul(up, hidden), b.mul(upBias, all))

	centered := b.do(gorgonia.Sub(y, b.mul(spread, b.mul(mean, y))))
	variance := b.mul(mean, b.times(centered, centered))
	deviation := b.do(gorgonia.Sqrt(b.add(variance, filled(1, c.Length, normEpsilon))))
	normed := b.do(gorgonia.HadamardDiv(centered, b.mul(spread, deviation)))
	y = b.add(b.times(normed, b.mul(gain, all)), b.mul(shift, all))
	return b.add(x, y), b.err
}

// builder keeps the first error of a chain of nodes; after it, it makes no more.
type builder struct{ err error }

func (b *builder) do(n *gorgonia.Node, err error) *gorgonia.Node {
	if b.err == nil {
		b.err = err
	}
	return n
}

func (b *builder) apply(op func(x, y *gorgonia.Node) (*gorgonia.Node, error), x, y *gorgonia.Node) *gorgonia.Node {
	if b.err != nil {
		return nil
	}
	return b.do(op(x, y))
}

func mulNodes(x, y *gorgonia.Node) (*gorgonia.Node, error) { return gorgonia.Mul(x, y) }

func (b *builder) mul(x, y *gorgonia.Node) *gorgonia.Node { return b.apply(mulNodes, x, y) }
func (b *builder) add(x, y *gorgonia.Node) *gorgonia.Node { return b.apply(gorgonia.Add, x, y) }
func (b *builder) times(x, y *gorgonia.Node) *gorgonia.Node {
	return b.apply(gorgonia.HadamardProd, x, y)
}
