package job

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/prompt"
)

// table is the model's table of embeddings.
func table(t *testing.T) (rows func(id int) []float32) {
	t.Helper()
	m, err := openModel(tinyModel)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	data, err := m.Float32("shared.weight", 384, 64)
	if err != nil {
		t.Fatal(err)
	}
	return func(id int) []float32 { return data[id*64 : (id+1)*64] }
}

func load(t *testing.T, change func(s *Settings)) *Job {
	t.Helper()
	s := testSettings()
	s.PromptLength = 7
	change(&s)
	job, err := Load(s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func embeddings(t *testing.T, j *Job) []float32 {
	t.Helper()
	rows, err := prompt.Embeddings(j.Spec.Prompt(), j.Initial.Params)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestMethodDefaults(t *testing.T) {
	for _, c := range []struct {
		method     string
		bottleneck int
		from       string
		size       int
	}{
		{"dpt", 10, "gaussian", 10 * (64 + 7)}, {"pt", 0, "vocabulary", 64 * 7},
		{"respt", 400, "vocabulary", 64*7 + 2*64*400 + 400 + 3*64}, {"svd", 7, "gaussian", 64*7 + 7 + 7*7},
	} {
		j := load(t, func(s *Settings) { s.Method = c.method })
		if j.Spec.Bottleneck != c.bottleneck || j.Spec.InitFrom != c.from || j.Spec.Parameters != c.size || len(j.Initial.Params) != c.size || j.Spec.LR != 0.3 {
			t.Errorf("%s: bottleneck %d, from %s, %d parameters, rate %v; want %d, %s, %d, 0.3", c.method, j.Spec.Bottleneck, j.Spec.InitFrom, j.Spec.Parameters, j.Spec.LR,
				c.bottleneck, c.from, c.size)
		}
	}
}

// TestStartFromVocabulary: every row is a token's embedding, no token twice, other seeds draw
// others.
func TestStartFromVocabulary(t *testing.T) {
	row := table(t)
	drawn := map[uint64][]int{}
	for _, seed := range []uint64{1, 2} {
		params := load(t, func(s *Settings) { s.Method, s.PromptLength, s.Seed = "pt", 40, seed }).Initial.Params
		for i := range 40 {
			id := -1
			for k := range 384 {
				if slices.Equal(row(k), params[i*64:(i+1)*64]) {
					id = k
				}
			}
			if id < 0 || slices.Contains(drawn[seed], id) {
				t.Fatalf("seed %d: row %d is token %d, want one that no other row is", seed, i, id)
			}
			drawn[seed] = append(drawn[seed], id)
		}
	}
	if slices.Equal(drawn[1], drawn[2]) {
		t.Error("two seeds draw the same tokens")
	}
	// More rows than tokens: with replacement.
	if job := load(t, func(s *Settings) { s.Method, s.PromptLength = "pt", 500 }); job.Spec.Parameters != 500*64 {
		t.Errorf("%d parameters", job.Spec.Parameters)
	}
}

func TestStartFromText(t *testing.T) {
	row := table(t)
	want := slices.Concat(row('a'+3), row('b'+3), row('c'+3), row('a'+3), row('b'+3), row('c'+3), row('a'+3))
	for _, method := range []string{"pt", "respt"} {
		job := load(t, func(s *Settings) { s.Method, s.InitText = method, "abc" })
		if job.Spec.InitFrom != "text" || !slices.Equal(job.Initial.Params[:7*64], want) {
			t.Errorf("%s: the prompt does not start from the text's tokens, again and again", method)
		}
	}
	if got := load(t, func(s *Settings) { s.Method, s.InitText, s.PromptLength = "pt", "abc", 2 }).Initial.Params; !slices.Equal(got, want[:2*64]) {
		t.Error("a text longer than the prompt is not cut")
	}
	// Three different rows have rank 3, so that a bottleneck of 10 holds them.
	for i, v := range embeddings(t, load(t, func(s *Settings) { s.InitText = "abc" })) {
		if d := v - want[i]; d > 1e-5 || d < -1e-5 {
			t.Fatalf("dpt: number %d is %v, want %v", i, v, want[i])
		}
	}
}

func TestStartFromLabels(t *testing.T) {
	row := table(t)
	got := load(t, func(s *Settings) { s.Method, s.InitFrom = "pt", "labels" }).Initial.Params
	if !slices.Equal(got[:2*64], slices.Concat(row('0'+3), row('1'+3))) {
		t.Error("the first rows are not the labels 0 and 1")
	}
	sampled := load(t, func(s *Settings) { s.Method, s.PromptLength = "pt", 5 }).Initial.Params
	if !slices.Equal(got[2*64:], sampled) {
		t.Error("the other rows are not drawn from the vocabulary")
	}
	// Labels of several tokens are the mean of them: "choice1" and "choice2" differ in one of
	// seven.
	words := load(t, func(s *Settings) { s.Method, s.InitFrom, s.Task, s.Template = "pt", "labels", "copa", "t5" }).Initial.Params
	for k := range 64 {
		want := (float64(row('2' + 3)[k]) - float64(row('1' + 3)[k])) / 7
		if d := float64(words[64+k]-words[k]) - want; d > 1e-6 || d < -1e-6 {
			t.Fatalf("number %d of the labels' rows differs by %v, want %v", k, words[64+k]-words[k], want)
		}
	}
}

// TestStartFromFile: a method goes on from its own file with the same bits, and from another's by
// its embeddings.
func TestStartFromFile(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{}
	for _, method := range []string{"dpt", "pt", "respt", "svd"} {
		job := load(t, func(s *Settings) { s.Method, s.Seed = method, 9 })
		p, err := job.Spec.Prompt().File(job.Initial.Params, nil)
		if err != nil {
			t.Fatal(err)
		}
		files[method] = filepath.Join(dir, method)
		if err := checkpoint.WritePrompt(files[method], p); err != nil {
			t.Fatal(err)
		}
		again := load(t, func(s *Settings) { s.Method, s.Init = method, files[method] })
		if !slices.Equal(again.Initial.Params, job.Initial.Params) {
			t.Errorf("%s does not go on from its own file", method)
		}
	}
	p, err := checkpoint.ReadPrompt(files["dpt"])
	if err != nil {
		t.Fatal(err)
	}
	if got := load(t, func(s *Settings) { s.Method, s.Init = "pt", files["dpt"] }).Initial.Params; !slices.Equal(got, p.Embeddings) {
		t.Error("pt does not start from dpt's prompt")
	}
	if got := load(t, func(s *Settings) { s.Method, s.Init = "respt", files["dpt"] }).Initial.Params; !slices.Equal(got[:7*64], p.Embeddings) {
		t.Error("respt does not start from dpt's prompt")
	}
}

func TestStartRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p")
	cfg := prompt.Config{Method: "dpt", Dim: 64, Length: 100, Bottleneck: 3}
	params, err := cfg.Init(prompt.Start{Seed: 1, Std: 1})
	if err != nil {
		t.Fatal(err)
	}
	p, err := cfg.File(params, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkpoint.WritePrompt(file, p); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(s *Settings){
		"--method: lora, want one of " + strings.Join(MethodNames(), ", "): func(s *Settings) { s.Method = "lora" },
		"--bottleneck: 4, want none with --method pt":                      func(s *Settings) { s.Method, s.Bottleneck = "pt", 4 },
		"--init-from: x, want one of gaussian, uniform":                    func(s *Settings) { s.InitFrom = "x" },
		"--init-from: uniform, want nothing beside":                        func(s *Settings) { s.InitFrom, s.InitText = "uniform", "a" },
		"--init-text: a, want nothing beside --init":                       func(s *Settings) { s.Init, s.InitText = "f", "a" },
		"--init-text: a, want gaussian or uniform":                         func(s *Settings) { s.Method, s.InitText = "svd", "a" },
		"--init-from: labels, want gaussian or uniform":                    func(s *Settings) { s.Method, s.InitFrom = "svd", "labels" },
		"task record answers with spans":                                   func(s *Settings) { s.Method, s.InitFrom, s.Task = "pt", "labels", "record" },
		"prompt of method dpt has bottleneck 3, want 10":                   func(s *Settings) { s.Init = file },
		"method svd starts from random matrices":                           func(s *Settings) { s.Method, s.Init = "svd", file },
		"bottleneck is 90, want at most 64: a diagonal of 64 by 100":       func(s *Settings) { s.Method, s.Bottleneck = "svd", 90 },
	} {
		s := testSettings()
		change(&s)
		if _, err := Load(s, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
