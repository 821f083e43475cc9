package pretrain

import (
	"math"
	"strings"

	"github.com/dptune/dpt/model/internal/gauss"
	"github.com/dptune/dpt/model/t5"
)

// initial returns the initial weights: T5's (T5PreTrainedModel._init_weights) with three
// differences. Embeddings have half the size. Outputs of sublayers shrink with the number of
// sublayers, as in GPT-2, so that the residual stream starts at the size of the embeddings at any
// depth. And the attention of most heads starts local: see addLocality.
func initial(s Settings) []float32 {
	params := s.Model.Parameters(s.Tied)
	last := params[len(params)-1]
	all := make([]float32, last.Offset+last.Size())
	for _, p := range params {
		v := all[p.Offset : p.Offset+p.Size()]
		std := deviation(s.Model, p)
		if len(p.Shape) == 1 {
			for i := range v {
				v[i] = 1
			}
			continue
		}
		gauss.New(s.Seed, "pretrain/"+p.Name).Fill(v, std)
		if strings.HasSuffix(p.Name, "relative_attention_bias.weight") {
			addLocality(s.Model, strings.HasPrefix(p.Name, "encoder."), v)
		}
	}
	return all
}

// headBias is how a head's initial attention depends on the distance of a key: it falls by slope
// per position, and by a constant on the other side of the query (side -1 prefers the left, 1 the
// right, 0 neither).
type headBias struct{ slope, side float32 }

// headBiases are the biases of successive heads, repeated.
var headBiases = []headBias{{1, -1}, {1, 1}, {0.3, -1}, {0.3, 0}, {0, 0}, {0, 0}}

// addLocality subtracts from a table of relative attention biases [buckets, heads] a value that
// grows with the distance, as in ALiBi (Press et al., 2022); here training starts from it and may
// change it. A single byte tells little: a model first has to learn to join nearby bytes to words,
// which takes long if attention is spread evenly over the text.
func addLocality(c t5.Config, bidirectional bool, table []float32) {
	const otherSide, most = 2, 8
	seen := make([]bool, c.RelativeBuckets)
	for d := 0; d <= c.RelativeDistance; d++ {
		for _, distance := range []int{-d, d} {
			b := c.RelativeBucket(distance, bidirectional)
			if seen[b] || distance > 0 && !bidirectional {
				continue
			}
			seen[b] = true // by its least distance
			for h := range c.NumHeads {
				s := headBiases[h%len(headBiases)]
				fall := s.slope * float32(d)
				if bidirectional && float32(distance)*s.side < 0 {
					fall += otherSide
				}
				table[b*c.NumHeads+h] -= min(fall, most)
			}
		}
	}
}

// rate is the factor of a weight's learning rate. T5 does not divide attention's scores by the root
// of a head's width; the weights of queries start smaller by that factor instead. Adam's steps have
// the same size for all weights, which would be too large for these by the same factor.
func rate(c t5.Config, p t5.Parameter) float64 {
	if strings.HasSuffix(p.Name, "Attention.q.weight") {
		return 1 / math.Sqrt(float64(c.DKV))
	}
	return 1
}

func deviation(c t5.Config, p t5.Parameter) float64 {
	std := 1 / math.Sqrt(float64(p.Shape[len(p.Shape)-1]))
	layers := 2 * c.NumLayers
	if strings.HasPrefix(p.Name, "decoder.") {
		layers = 3 * c.NumDecoderLayers
	}
	switch {
	case p.Name == "shared.weight":
		return 0.5
	case strings.HasSuffix(p.Name, "Attention.q.weight"):
		return std / math.Sqrt(float64(c.DKV))
	case strings.HasSuffix(p.Name, "relative_attention_bias.weight"):
		return 1 / math.Sqrt(float64(c.DModel))
	case strings.HasSuffix(p.Name, "Attention.o.weight"), strings.HasSuffix(p.Name, ".wo.weight"):
		return std / math.Sqrt(float64(layers))
	}
	return std
}
