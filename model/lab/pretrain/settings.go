package pretrain

import (
	"fmt"

	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/t5"
)

// Settings and the Corpus decide the result of a run.
type Settings struct {
	Model t5.Config
	Tied  bool // the output projection is the embedding table
	Seed  uint64

	Steps       int64
	BatchTokens int // a step's source and target tokens together, about
	Micro       int // micro-batches that a step is cut into

	Spans     float64 // share of the examples that are corrupted documents; the others are pairs
	Noise     float64 // share of a document's bytes that are taken out
	SpanBytes float64 // mean length of a span that is taken out
	MaxBytes  int     // of a document; a longer one is cut

	Optimizer optim.AdamW
	Clip      float64 // bound of the gradient's norm; 0 is none
	// The learning rate grows linearly over Warmup steps, stays, and falls linearly to 0 over the
	// last Decay steps.
	Warmup, Decay int64
}

// DefaultSettings returns the settings that made the embedded model.
func DefaultSettings() Settings {
	o := optim.NewAdamW(7e-4, 0.01)
	o.Beta2 = 0.98
	return Settings{
		Model: defaultModel(), Seed: 1, Steps: 12000, BatchTokens: 14500, Micro: 4,
		Spans: 0.05, Noise: 0.15, SpanBytes: 10, MaxBytes: 256,
		Optimizer: o, Clip: 1, Warmup: 200, Decay: 1500,
	}
}

// defaultModel is a T5 v1.1 with a byte-level vocabulary.
func defaultModel() t5.Config {
	return t5.Config{
		ModelType: "t5", VocabSize: 384, DModel: 192, DKV: 32, DFF: 448, NumLayers: 4, NumDecoderLayers: 2, NumHeads: 6,
		RelativeBuckets: 32, RelativeDistance: 128, LayerNormEpsilon: 1e-6, GatedGELU: true, EOSTokenIDs: []int32{1},
	}
}

// Validate checks that a run can have the settings.
func (s Settings) Validate() error {
	if err := s.Model.Validate(); err != nil {
		return err
	}
	if err := s.Optimizer.Validate(); err != nil {
		return err
	}
	for _, f := range []struct {
		name         string
		value        float64
		least, limit float64
	}{
		{"steps", float64(s.Steps), 1, 1 << 40},
		{"tokens in a batch", float64(s.BatchTokens), 1, 1 << 30},
		{"micro-batches", float64(s.Micro), 1, 1 << 12},
		{"share of documents", s.Spans, 0, 1},
		{"share of noise", s.Noise, 0.001, 0.9},
		{"mean bytes of a span", s.SpanBytes, 1, 1 << 20},
		{"most bytes of a document", float64(s.MaxBytes), 8, 1 << 20},
		{"clipping norm", s.Clip, 0, 1e30},
		{"warm-up steps", float64(s.Warmup), 0, float64(s.Steps)},
		{"decay steps", float64(s.Decay), 0, float64(s.Steps)},
	} {
		if !(f.value >= f.least && f.value <= f.limit) {
			return fmt.Errorf("%s: %v, want %v to %v", f.name, f.value, f.least, f.limit)
		}
	}
	if s.Warmup+s.Decay > s.Steps {
		return fmt.Errorf("%d warm-up and %d decay steps, want at most the %d steps of the run",
			s.Warmup, s.Decay, s.Steps)
	}
	if s.Model.VocabSize < firstSentinel+1 {
		return fmt.Errorf("vocabulary of %d ids, want at least %d: 3 special tokens, 256 bytes, and sentinels",
			s.Model.VocabSize, firstSentinel+1)
	}
	return nil
}

// factor of the learning rate at step t, from 0.
func (s Settings) factor(t int64) float64 {
	f := 1.0
	if t < s.Warmup {
		f = float64(t+1) / float64(s.Warmup+1)
	}
	if left := s.Steps - t; left <= s.Decay {
		f *= float64(left) / float64(s.Decay+1)
	}
	return f
}

// resumable returns an error unless a run that has taken step steps under s may continue under
// next. The highest learning rate, the number of steps and the decay may change as long as the
// learning rate falls under neither; everything else must be equal.
func (s Settings) resumable(next Settings, step int64) error {
	old, same := s, next
	old.Steps, old.Decay, same.Steps, same.Decay = 0, 0, 0, 0
	old.Optimizer.LR, same.Optimizer.LR = 0, 0
	if a, b := fmt.Sprintf("%+v", old), fmt.Sprintf("%+v", same); a != b {
		return fmt.Errorf("the run was started with %s, want the same, not %s", a, b)
	}
	if s.Steps == next.Steps && s.Decay == next.Decay && s.Optimizer.LR == next.Optimizer.LR {
		return nil
	}
	for _, v := range []Settings{s, next} {
		if step > v.Steps-v.Decay {
			return fmt.Errorf("the run of %d steps at %v, the last %d of them falling, "+
				"cannot become one of %d at %v, %d falling, after step %d: the learning rate would have been another",
				s.Steps, s.Optimizer.LR, s.Decay, next.Steps, next.Optimizer.LR, next.Decay, step)
		}
	}
	return nil
}
