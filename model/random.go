package model

import (
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/dptune/dpt/model/t5"
)

// OpenRandom is Open for a published T5's shape (see t5.Shapes) with random weights of the size
// that T5 initializes with, which depend on the seed alone: for measurements without files.
func OpenRandom(shape string, seed uint64, opt Options) (*Backbone, error) {
	cfg, err := t5.Shape(shape)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("random:%s:%d", shape, seed)
	b, err := newBackbone(name, cfg, randomWeights{cfg, seed}, opt)
	if err != nil {
		return nil, fmt.Errorf("open model %s: %w", name, err)
	}
	b.digest = sha256.Sum256([]byte(name))
	return b, nil
}

// randomWeights draws tensors when they are asked for.
type randomWeights struct {
	cfg  t5.Config
	seed uint64
}

func (w randomWeights) Has(name string) bool {
	return name == "shared.weight" || name == "lm_head.weight" && !w.cfg.ScaleOutput
}

// Float32 returns uniform numbers with T5PreTrainedModel._init_weights' standard deviation.
func (w randomWeights) Float32(name string, shape ...int) ([]float32, error) {
	n := 1
	for _, s := range shape {
		n *= s
	}
	data := make([]float32, n)
	deviation, mean := 1/math.Sqrt(float64(shape[len(shape)-1])), 0.0
	switch {
	case len(shape) == 1: // a norm's gain
		deviation, mean = 0, 1
	case name == "shared.weight":
		deviation = 1
	case strings.HasSuffix(name, "Attention.q.weight"):
		deviation /= math.Sqrt(float64(w.cfg.DKV))
	case strings.HasSuffix(name, "relative_attention_bias.weight"):
		deviation = 1 / math.Sqrt(float64(w.cfg.DModel))
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	src := rand.NewPCG(w.seed, h.Sum64())
	width := deviation * math.Sqrt(12)
	for i := range data {
		data[i] = float32(mean + (float64(src.Uint64()>>11)/(1<<53)-0.5)*width)
	}
	return data, nil
}
