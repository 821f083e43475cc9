package pretrain

import (
	"math"
	"strings"

	"github.com/dptune/dpt/model/internal/gauss"
	"github.com/dptune/dpt/model/t5"
)

// initial weights: T5's (T5PreTrainedModel._init_weights) but for three things. Embeddings have half the size. Outputs of sublayers shrink with their
// number, as GPT-2's do, so that the residual stream starts at the size of the embeddings whatever the depth. And most heads start near-sighted: see
// locality.
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
			locality(s.Model, strings.HasPrefix(p.Name, "encoder."), v)
		}
	}
	return all
}

// sights are how the heads of an encoder see at first, over and over: how fast attention falls with the distance, and with how much less it looks
// to one side (-1 the right, 1 the left).
var sights = []struct{ slope, aside float32 }{{1, -1}, {1, 1}, {0.3, -1}, {0.3, 0}, {0, 0}, {0, 0}}

// locality adds to a table of relative attention biases [buckets, heads] a fall with the distance, as ALiBi has it (Press et al., 2022), which here is
// only where training starts. A byte says little: what first has to be learned is to make words of the bytes nearby, and from attention that is spread evenly
// over a text that takes long.
func locality(c t5.Config, bidirectional bool, table []float32) {
	const aside, most = 2, 8
	seen := make([]bool, c.RelativeBuckets)
	for d := 0; d <= c.RelativeDistance; d++ {
		for _, distance := range []int{-d, d} {
			b := c.RelativeBucket(distance, bidirectional)
			if seen[b] || distance > 0 && !bidirectional {
				continue
			}
			seen[b] = true // by its least distance
			for h := range c.NumHeads {
				s := sights[h%len(sights)]
				fall := s.slope * float32(d)
				if bidirectional && float32(distance)*s.aside < 0 {
					fall += aside
				}
				table[b*c.NumHeads+h] -= min(fall, most)
			}
		}
	}
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
