package job

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/t5"
)

// TestFineTuningCommitsRarely: a large state is committed as often as its size allows, and its
// entry only names it.
func TestFineTuningCommitsRarely(t *testing.T) {
	dir := t.TempDir()
	write := func(vocab int) {
		cfg := t5.Config{ModelType: "t5", VocabSize: vocab, DModel: 128, DKV: 8, DFF: 16, NumLayers: 1, NumDecoderLayers: 1, NumHeads: 2,
			RelativeBuckets: 32, RelativeDistance: 128, LayerNormEpsilon: 1e-6, ScaleOutput: true, EOSTokenIDs: []int32{1}}
		config, err := cfg.JSON(true, "float32")
		if err != nil {
			t.Fatal(err)
		}
		var tensors []checkpoint.Tensor
		for _, p := range cfg.Parameters(true) {
			tensors = append(tensors, checkpoint.F32(p.Name, p.Shape, make([]float32, p.Size())))
		}
		if err := checkpoint.WriteModel(dir, config, tensors, map[string][]byte{"tokenizer_config.json": []byte(`{"tokenizer_class": "ByT5Tokenizer", "extra_ids": 125}`)}); err != nil {
			t.Fatal(err)
		}
	}
	s := DefaultSettings()
	s.Model, s.Method, s.Steps = dir, FineTuning, 10
	write(40000)
	job, err := Load(s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	// 5.1 million weights are 61.8 MB of state: 8 steps pay for one beside the log, and 30 would
	// for one in it.
	if got := job.Spec.CommitInterval(1, InlineState); got != 8 {
		t.Errorf("commits every %d steps, want 8", got)
	}
	if got := job.Spec.CommitInterval(1, 64<<20); got != 30 {
		t.Errorf("commits every %d steps, want 30", got)
	}
	if got := job.Spec.CommitInterval(100, InlineState); got != 100 {
		t.Errorf("commits every %d steps, want the 100 that were asked for", got)
	}
	prompts := job.Spec
	if prompts.Method = "respt"; prompts.CommitInterval(1, 64<<20) != 1 {
		t.Error("a prompt's state is committed less often than was asked for")
	}
}

func TestFineTuningSettings(t *testing.T) {
	for flag, change := range map[string]func(*Settings){
		"init": func(s *Settings) { s.Init = "x" }, "init-text": func(s *Settings) { s.InitText = "x" },
		"init-from": func(s *Settings) { s.InitFrom = "gaussian" }, "bottleneck": func(s *Settings) { s.Bottleneck = 3 },
	} {
		s := DefaultSettings()
		s.Method = FineTuning
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&s)
		var bad *SettingError
		if err := s.Validate(); !errors.As(err, &bad) || bad.Flag != flag {
			t.Errorf("--%s with ft: %v", flag, err)
		}
	}
}
