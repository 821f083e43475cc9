package job_test

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/t5"
)

// writeModel writes a model of one layer, with zeros for weights.
func writeModel(t *testing.T, dir string, vocabulary int) {
	t.Helper()
	cfg := t5.Config{
		ModelType:        "t5",
		VocabSize:        vocabulary,
		DModel:           128,
		DKV:              8,
		DFF:              16,
		NumLayers:        1,
		NumDecoderLayers: 1,
		NumHeads:         2,
		RelativeBuckets:  32,
		RelativeDistance: 128,
		LayerNormEpsilon: 1e-6,
		ScaleOutput:      true,
		EOSTokenIDs:      []int32{1},
	}
	config, err := cfg.JSON(true, "float32")
	if err != nil {
		t.Fatal(err)
	}
	var tensors []checkpoint.Tensor
	for _, p := range cfg.Parameters(true) {
		tensors = append(tensors, checkpoint.F32(p.Name, p.Shape, make([]float32, p.Size())))
	}
	files := map[string][]byte{
		"tokenizer_config.json": []byte(`{"tokenizer_class": "ByT5Tokenizer", "extra_ids": 125}`),
	}
	if err := checkpoint.WriteModel(dir, config, tensors, files); err != nil {
		t.Fatal(err)
	}
}

// TestFineTuningCommitsRarely: a large state is committed as often as its size allows.
func TestFineTuningCommitsRarely(t *testing.T) {
	s := job.DefaultSettings()
	s.Model, s.Method, s.Steps = t.TempDir(), job.FineTuning, 10
	writeModel(t, s.Model, 40000)
	j, err := job.Load(s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	// 5.1 million weights are 61.8 MB of state: 8 steps pay for it as a blob, 30 steps in the log.
	for _, c := range []struct {
		every  int64
		inline int
		want   int64
	}{
		{1, job.InlineState, 8},
		{1, 64 << 20, 30},
		{100, job.InlineState, 100},
	} {
		if got := j.Spec.CommitInterval(c.every, c.inline); got != c.want {
			t.Errorf("with %d asked for and %d bytes inline, commits every %d steps, want %d",
				c.every, c.inline, got, c.want)
		}
	}
	prompts := j.Spec
	prompts.Method = "respt"
	if got := prompts.CommitInterval(1, 64<<20); got != 1 {
		t.Errorf("a prompt's state is committed every %d steps, want the 1 that was asked for", got)
	}
}

func TestFineTuningSettings(t *testing.T) {
	for flag, change := range map[string]func(*job.Settings){
		"init":       func(s *job.Settings) { s.Init = "x" },
		"init-text":  func(s *job.Settings) { s.InitText = "x" },
		"init-from":  func(s *job.Settings) { s.InitFrom = "gaussian" },
		"bottleneck": func(s *job.Settings) { s.Bottleneck = 3 },
	} {
		s := job.DefaultSettings()
		s.Method = job.FineTuning
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&s)
		var bad *job.SettingError
		if err := s.Validate(); !errors.As(err, &bad) || bad.Flag != flag {
			t.Errorf("--%s with ft: error %v, want one about the flag", flag, err)
		}
	}
}
