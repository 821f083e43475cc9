package pretrain

import (
	"math"
	"strings"

	"github.com/dptune/dpt/model/prompt/gauss"
	"github.com/dptune/dpt/model/t5"
)

// initial weights: T5's (T5PreTrainedModel._init_weights) but for embeddings of half the size, and outputs of sublayers that shrink with their number,
// as GPT-2's do, so that the residual stream starts at the size of the embeddings whatever the depth.
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
	}
	return all
}

// rate is a weight's share of the learning rate. T5 does not divide attention's scores by the root of a head's width but has queries start smaller by as
// much; Adam's steps have one size for all, which would be as much too large for them.
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
