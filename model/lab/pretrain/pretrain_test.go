package pretrain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dptune/dpt/dataset/tokenizer"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/portable"
	"github.com/dptune/dpt/model/t5"
)

// words is a corpus that can be learned: documents repeat one word, pairs ask for the other of two
// letters.
func words() Corpus {
	return Corpus{
		Name: "words",
		Document: func(s Stream, i uint64) string {
			r := newRandom(s.Seed, i+1<<40)
			return strings.Repeat(string(rune('a'+r.below(3))), 8+r.below(20))
		},
		Pair: func(s Stream, i uint64) (source, target, kind string) {
			r := newRandom(s.Seed+1, i)
			if r.below(2) == 0 {
				return "say x", "y", "letter"
			}
			return "say y", "x", "letter"
		},
	}
}

func smallSettings(gated bool) Settings {
	s := DefaultSettings()
	s.Model.DModel, s.Model.DKV, s.Model.DFF, s.Model.NumHeads = 16, 8, 24, 2
	s.Model.NumLayers, s.Model.NumDecoderLayers = 1, 1
	s.Model.GatedGELU, s.Model.ScaleOutput, s.Tied = gated, !gated, !gated
	s.Steps, s.Warmup, s.Decay, s.BatchTokens, s.Micro, s.Spans, s.Optimizer.LR = 40, 5, 20, 300, 3, 0.3, 1e-2
	return s
}

func options(s Settings, dir string, workers int) Options {
	return Options{
		Settings:  s,
		Corpus:    words(),
		Dir:       dir,
		Workers:   workers,
		Engine:    openNamed("test"),
		LogEvery:  10,
		EvalEvery: 20,
		EvalPairs: 30,
		SaveEvery: time.Hour,
		Log:       slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// namedEngine is an engine whose Numerics a test chooses.
type namedEngine struct {
	engine.Trainer
	numerics string
}

func (e namedEngine) Numerics() string { return e.numerics }

func openNamed(numerics string) func() (engine.Engine, error) {
	return func() (engine.Engine, error) { return namedEngine{portable.New[float32](1), numerics}, nil }
}

func weightsOf(t *testing.T, dir string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestRunLearns: a run learns and writes a model that opens; its bits depend neither on the number
// of workers nor on being stopped and resumed.
func TestRunLearns(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	for _, gated := range []bool{true, false} {
		t.Run(fmt.Sprintf("gated=%v", gated), func(t *testing.T) {
			s := smallSettings(gated)
			s.Steps = 80
			one, many, stopped := t.TempDir(), t.TempDir(), t.TempDir()
			var reports []Report
			var evaluations []Evaluation
			o := options(s, one, 1)
			o.Report, o.Evaluation = func(r Report) { reports = append(reports, r) },
				func(e Evaluation) { evaluations = append(evaluations, e) }
			if err := Run(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			if n := len(reports); n != 8 || reports[n-1].Step != s.Steps || reports[0].Loss < 3*reports[n-1].Loss {
				t.Errorf("%d reports, the first %+v, the last %+v: want 8 and a third of the loss",
					n, reports[0], reports[n-1])
			}
			last := evaluations[len(evaluations)-1]
			if all := last.Kinds[len(last.Kinds)-1]; len(evaluations) != 4 || all.Kind != "all" || all.Exact < 0.9 {
				t.Errorf("%d evaluations, the last %+v: want 4, and 9 in 10 answers right", len(evaluations), last)
			}
			if err := Run(t.Context(), options(s, many, 3)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(weightsOf(t, one), weightsOf(t, many)) {
				t.Error("three workers trained other weights than one")
			}

			// Stopped twice, once after a save that later steps outlived; the number of steps is
			// decided on the way.
			ctx, cancel := context.WithCancel(t.Context())
			o = options(s, stopped, 2)
			o.Settings.Steps, o.SaveEvery = 1000, 0
			o.Report = func(r Report) {
				if r.Step == 30 {
					cancel()
				}
			}
			if err := Run(ctx, o); !errors.Is(err, context.Canceled) {
				t.Fatalf("stopped run: %v, want %v", err, context.Canceled)
			}
			o.Settings.Steps, o.Report = s.Steps, nil
			if err := Run(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(weightsOf(t, one), weightsOf(t, stopped)) {
				t.Error("a run that was stopped trained other weights")
			}

			m, err := checkpoint.OpenModel(one)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			cfg, err := t5.ParseConfig(m.Config())
			if err != nil {
				t.Fatal(err)
			}
			if err := t5.Check(cfg, m); err != nil {
				t.Error(err)
			}
			tok, err := tokenizer.Open(one)
			if err != nil {
				t.Fatal(err)
			}
			if text := "Ann is <in>"; !slices.Equal(append(tok.Encode(text), tok.EOSID()), encode(text)) ||
				tok.VocabSize() != cfg.VocabSize {
				t.Errorf("the tokenizer gives %v, training saw %v", tok.Encode(text), encode(text))
			}
		})
	}
}

func TestResumeRefusesAnotherRun(t *testing.T) {
	s := smallSettings(true)
	s.Steps = 4
	s.Decay, s.Warmup = 2, 1
	dir := t.TempDir()
	if err := Run(t.Context(), options(s, dir, 1)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"seed":       func(o *Options) { o.Settings.Seed++ },
		"model":      func(o *Options) { o.Settings.Model.DFF++ },
		"corpus":     func(o *Options) { o.Corpus.Name = "other" },
		"numerics":   func(o *Options) { o.Engine = openNamed("other") },
		"more steps": func(o *Options) { o.Settings.Steps++ },
	} {
		o := options(s, dir, 1)
		change(&o)
		if err := Run(t.Context(), o); err == nil {
			t.Errorf("a run with another %s went on", name)
		}
	}
	path := filepath.Join(dir, stateFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data[:len(data)-4], 0o666); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), options(s, dir, 1)); err == nil {
		t.Error("a truncated state was taken")
	}
}

func TestResumable(t *testing.T) {
	with := func(steps, decay int64, lr float64) Settings {
		s := DefaultSettings()
		s.Steps, s.Decay, s.Optimizer.LR = steps, decay, lr
		return s
	}
	was := with(100, 20, 0.1)
	for name, test := range map[string]struct {
		next Settings
		step int64
		ok   bool
	}{
		"the same, falling":            {was, 90, true},
		"longer":                       {with(200, 20, 0.1), 80, true},
		"longer, falling":              {with(200, 20, 0.1), 81, false},
		"shorter, would have fallen":   {with(60, 20, 0.1), 41, false},
		"another rate":                 {with(100, 20, 0.01), 80, true},
		"another rate, falling":        {with(100, 20, 0.01), 81, false},
		"another rate, longer, a stop": {with(200, 90, 0.01), 80, true},
	} {
		if err := was.resumable(test.next, test.step); err == nil != test.ok {
			t.Errorf("%s: after step %d of %d: %v", name, test.step, was.Steps, err)
		}
	}
	other := was
	other.Optimizer.WeightDecay = 0.5
	if err := was.resumable(other, 1); err == nil || !strings.Contains(err.Error(), "WeightDecay:0.5") {
		t.Errorf("another weight decay: %v, want a refusal that shows it", err)
	}
}

// TestReadRecord: a run's directory records what the run was, and a model of another run in it is
// refused.
func TestReadRecord(t *testing.T) {
	for _, bf16 := range []bool{true, false} {
		s := smallSettings(bf16)
		s.Steps, s.Warmup, s.Decay = 3, 1, 1
		o := options(s, t.TempDir(), 1)
		var tokens int64
		o.BF16, o.LogEvery, o.Report = bf16, 1, func(r Report) { tokens = r.Tokens }
		if err := Run(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		want := Record{Settings: s, Corpus: o.Corpus.Name, Numerics: "test", Steps: 3, Tokens: tokens}
		if got, err := ReadRecord(o.Dir); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("record %+v (%v), want %+v", got, err, want)
		}
		path := filepath.Join(o.Dir, "model.safetensors")
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)-1] ^= 1
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadRecord(o.Dir); err == nil ||
			!strings.Contains(err.Error(), "is not that of state.safetensors") {
			t.Errorf("a model with another weight: %v", err)
		}
	}
}

func TestFactor(t *testing.T) {
	s := Settings{Steps: 10, Warmup: 3, Decay: 4}
	want := []float64{0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2}
	for i, w := range want {
		if got := s.factor(int64(i)); got < w-1e-12 || got > w+1e-12 {
			t.Errorf("factor of step %d is %v, want %v", i, got, w)
		}
	}
}

// TestCorrupt: replacing every sentinel by its span in the target restores a document, and the
// share of bytes that is taken out is the one asked for.
func TestCorrupt(t *testing.T) {
	r := newRandom(1, 1)
	for range 2000 {
		n := 2 + r.below(300)
		text := make([]byte, n)
		for i := range text {
			text[i] = byte(r.below(256))
		}
		noise, mean, most := 0.05+0.5*r.share(), 1+20*r.share(), 1+r.below(30)
		source, target := corrupt(string(text), noise, mean, most, r)
		if source[len(source)-1] != eosID || target[len(target)-1] != eosID {
			t.Fatal("source or target does not end with </s>")
		}
		taken := map[int32][]int32{}
		var at int32
		out := 0
		for _, id := range target[:len(target)-1] {
			if id >= firstSentinel {
				at = id
				continue
			}
			taken[at] = append(taken[at], id)
			out++
		}
		var back []byte
		sentinels := 0
		for _, id := range source[:len(source)-1] {
			ids := []int32{id}
			if id >= firstSentinel {
				if id != int32(firstSentinel+sentinels) {
					t.Fatalf("sentinel %d is id %d", sentinels, id)
				}
				sentinels++
				ids = taken[id]
			}
			for _, id := range ids {
				back = append(back, byte(id-byteOffset))
			}
		}
		if string(back) != string(text) {
			t.Fatalf("%q came back as %q", text, back)
		}
		if want := float64(n) * noise; float64(out) < want-1 && out < n-1 || float64(out) > want+1 ||
			sentinels > most || sentinels != len(taken) {
			t.Fatalf("%d of %d bytes in %d spans for a share of %v, %d sentinels at most",
				out, n, sentinels, noise, most)
		}
	}
}

// TestPartition: every way of cutting is as likely as another.
func TestPartition(t *testing.T) {
	r := newRandom(3, 3)
	counts := map[string]int{}
	const draws = 6000
	for range draws {
		p := r.partition(5, 3)
		counts[fmt.Sprint(p)]++
	}
	if len(counts) != 6 {
		t.Errorf("%d ways of cutting 5 into 3, want 6: %v", len(counts), counts)
	}
	for p, n := range counts {
		if n < draws/6*8/10 || n > draws/6*12/10 {
			t.Errorf("%s came %d times of %d, want a sixth", p, n, draws)
		}
	}
}

func TestFileCorpus(t *testing.T) {
	dir := t.TempDir()
	write := func(name, line string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, line+"\n", i)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(b.String()), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	docs := write("docs", "document %d", 100)
	pairs := write("pairs", `{"source": "s%d", "target": "t", "kind": "k"}`, 150)
	c, err := FileCorpus(docs, pairs)
	if err != nil {
		t.Fatal(err)
	}
	seen, held := map[string]bool{}, map[string]bool{}
	for i := range uint64(2000) {
		seen[c.Document(Stream{1, false}, i)] = true
		held[c.Document(Stream{1, true}, i)] = true
		source, target, kind := c.Pair(Stream{1, false}, i)
		seen[source] = true
		if target != "t" || kind != "k" {
			t.Fatalf("pair %q %q %q", source, target, kind)
		}
	}
	if len(seen) != 98+147 || len(held) != 2 || seen["document 50"] || !held["document 50"] || seen["s100"] {
		t.Errorf("%d lines to train on and %d documents held out, want 245 and 2", len(seen), len(held))
	}
	for _, bad := range [][2]string{
		{write("few", "line %d", 49), ""}, {"", write("no", "{}%.0d", 60)}, {"", write("json", "x %d", 60)},
		{filepath.Join(dir, "none"), ""}, {write("short", "%.0dx", 60), ""},
	} {
		if _, err := FileCorpus(bad[0], bad[1]); err == nil {
			t.Errorf("files %v were taken", bad)
		}
	}
}

func TestSettingsErrors(t *testing.T) {
	for i, change := range []func(*Settings){
		func(s *Settings) { s.Steps = 0 },
		func(s *Settings) { s.Micro = 0 },
		func(s *Settings) { s.Spans = 1.5 },
		func(s *Settings) { s.Noise = 0 },
		func(s *Settings) { s.Warmup, s.Decay = s.Steps, 1 },
		func(s *Settings) { s.Model.VocabSize = 100 },
		func(s *Settings) { s.Model.DModel = 0 },
		func(s *Settings) { s.Optimizer.LR = -1 },
	} {
		s := DefaultSettings()
		change(&s)
		if s.Validate() == nil {
			t.Errorf("change %d was taken", i)
		}
	}
	if err := DefaultSettings().Validate(); err != nil {
		t.Error(err)
	}
	s := DefaultSettings()
	if n := size(s); n > 3_000_000 {
		t.Errorf("the default model has %d weights, want at most 3 million: 6 MB in bfloat16", n)
	}
}

// TestAddLocality: a head with a slope prefers keys near the query, one with a side prefers that
// side, and the others treat all keys alike.
func TestAddLocality(t *testing.T) {
	c := defaultModel()
	for _, bidirectional := range []bool{true, false} {
		table := make([]float32, c.RelativeBuckets*c.NumHeads)
		addLocality(c, bidirectional, table)
		at := func(distance, head int) float32 {
			return table[c.RelativeBucket(distance, bidirectional)*c.NumHeads+head]
		}
		for h, s := range headBiases {
			if at(0, h) != 0 {
				t.Errorf("head %d has %v at its own place, want 0", h, at(0, h))
			}
			near, far := at(-1, h), at(-100, h)
			if s.slope == 0 && (near != 0 || far != 0) || s.slope > 0 && far >= near {
				t.Errorf("head %d of slope %v has %v one place to the left and %v at a hundred", h, s.slope, near, far)
			}
			if !bidirectional {
				continue
			}
			left, right := at(-3, h), at(3, h)
			if s.side < 0 && right >= left || s.side > 0 && left >= right || s.side == 0 && left != right {
				t.Errorf("head %d of side %v has %v to the left, %v to the right", h, s.side, left, right)
			}
		}
	}
}
