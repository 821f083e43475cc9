package job_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/internal/jobtest"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/lab/tinyrandom"
	"github.com/dptune/dpt/model/prompt"
)

// dim is the width of the model: of a row of the prompt.
const dim = tinyrandom.DModel

// embeddingOf returns the rows of the model's table of embeddings.
func embeddingOf(t *testing.T) (row func(id int) []float32) {
	t.Helper()
	m, err := checkpoint.OpenModel(jobtest.Model)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	data, err := m.Float32("shared.weight", tinyrandom.VocabSize, dim)
	if err != nil {
		t.Fatal(err)
	}
	return func(id int) []float32 { return data[id*dim : (id+1)*dim] }
}

// load loads a job with a prompt of 7 rows, before the change.
func load(t *testing.T, change func(s *job.Settings)) *job.Job {
	t.Helper()
	return jobtest.Load(t, func(s *job.Settings) {
		s.PromptLength = 7
		change(s)
	})
}

// params are the initial parameters of the job that load loads.
func params(t *testing.T, change func(s *job.Settings)) []float32 {
	t.Helper()
	return load(t, change).Initial.Params
}

func TestMethodDefaults(t *testing.T) {
	for _, c := range []struct {
		method     string
		bottleneck int
		from       string
		size       int
	}{
		{"dpt", 10, "gaussian", 10 * (dim + 7)},
		{"pt", 0, "vocabulary", dim * 7},
		{"respt", 400, "vocabulary", dim*7 + 2*dim*400 + 400 + 3*dim},
		{"svd", 7, "gaussian", dim*7 + 7 + 7*7},
	} {
		j := load(t, func(s *job.Settings) { s.Method = c.method })
		spec := j.Spec
		if spec.Bottleneck != c.bottleneck || spec.InitFrom != c.from || spec.LR != 0.3 ||
			spec.Parameters != c.size || len(j.Initial.Params) != c.size {
			t.Errorf("%s: bottleneck %d, from %s, %d parameters, rate %v; want %d, %s, %d, 0.3",
				c.method, spec.Bottleneck, spec.InitFrom, spec.Parameters, spec.LR, c.bottleneck, c.from, c.size)
		}
	}
}

// TestStartFromVocabulary: every row is a token's embedding, no token twice, other seeds draw
// others.
func TestStartFromVocabulary(t *testing.T) {
	row := embeddingOf(t)
	drawn := map[uint64][]int{}
	for _, seed := range []uint64{1, 2} {
		got := params(t, func(s *job.Settings) { s.Method, s.PromptLength, s.Seed = "pt", 40, seed })
		for i := range 40 {
			id := -1
			for k := range tinyrandom.VocabSize {
				if slices.Equal(row(k), got[i*dim:(i+1)*dim]) {
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
	j := load(t, func(s *job.Settings) { s.Method, s.PromptLength = "pt", 500 })
	if j.Spec.Parameters != 500*dim {
		t.Errorf("%d parameters", j.Spec.Parameters)
	}
}

func TestStartFromText(t *testing.T) {
	row := embeddingOf(t)
	abc := slices.Concat(row('a'+3), row('b'+3), row('c'+3))
	want := slices.Concat(abc, abc, row('a'+3))
	for _, method := range []string{"pt", "respt"} {
		j := load(t, func(s *job.Settings) { s.Method, s.InitText = method, "abc" })
		if j.Spec.InitFrom != "text" || !slices.Equal(j.Initial.Params[:7*dim], want) {
			t.Errorf("%s: the prompt does not start from the text's tokens, again and again", method)
		}
	}
	short := params(t, func(s *job.Settings) { s.Method, s.InitText, s.PromptLength = "pt", "abc", 2 })
	if !slices.Equal(short, want[:2*dim]) {
		t.Error("a text longer than the prompt is not cut")
	}
	// Three different rows have rank 3, so that a bottleneck of 10 holds them.
	j := load(t, func(s *job.Settings) { s.InitText = "abc" })
	rows, err := prompt.Embeddings(j.Spec.Prompt(), j.Initial.Params)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range rows {
		if d := v - want[i]; d > 1e-5 || d < -1e-5 {
			t.Fatalf("dpt: number %d is %v, want %v", i, v, want[i])
		}
	}
}

func TestStartFromLabels(t *testing.T) {
	row := embeddingOf(t)
	got := params(t, func(s *job.Settings) { s.Method, s.InitFrom = "pt", "labels" })
	if !slices.Equal(got[:2*dim], slices.Concat(row('0'+3), row('1'+3))) {
		t.Error("the first rows are not the labels 0 and 1")
	}
	sampled := params(t, func(s *job.Settings) { s.Method, s.PromptLength = "pt", 5 })
	if !slices.Equal(got[2*dim:], sampled) {
		t.Error("the other rows are not drawn from the vocabulary")
	}
	// Labels of several tokens are the mean of them: "choice1" and "choice2" differ in one of
	// seven.
	words := params(t, func(s *job.Settings) {
		s.Method, s.InitFrom, s.Task, s.Template = "pt", "labels", "copa", "t5"
	})
	for k := range dim {
		want := (float64(row('2' + 3)[k]) - float64(row('1' + 3)[k])) / 7
		if d := float64(words[dim+k]-words[k]) - want; d > 1e-6 || d < -1e-6 {
			t.Fatalf("number %d of the labels' rows differs by %v, want %v", k, words[dim+k]-words[k], want)
		}
	}
}

// TestStartFromFile: a method continues its own file with the same bits, and that of another method
// by its embeddings.
func TestStartFromFile(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{}
	for _, method := range []string{"dpt", "pt", "respt", "svd"} {
		j := load(t, func(s *job.Settings) { s.Method, s.Seed = method, 9 })
		p, err := j.Spec.Prompt().File(j.Initial.Params, nil)
		if err != nil {
			t.Fatal(err)
		}
		files[method] = filepath.Join(dir, method)
		if err := checkpoint.WritePrompt(files[method], p); err != nil {
			t.Fatal(err)
		}
		again := params(t, func(s *job.Settings) { s.Method, s.Init = method, files[method] })
		if !slices.Equal(again, j.Initial.Params) {
			t.Errorf("%s does not continue its own file", method)
		}
	}
	p, err := checkpoint.ReadPrompt(files["dpt"])
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"pt", "respt"} {
		got := params(t, func(s *job.Settings) { s.Method, s.Init = method, files["dpt"] })
		if !slices.Equal(got[:7*dim], p.Embeddings) || method == "pt" && len(got) > 7*dim {
			t.Errorf("%s does not start from dpt's prompt", method)
		}
	}
}

func TestStartRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p")
	cfg := prompt.Config{Method: "dpt", Dim: dim, Length: 100, Bottleneck: 3}
	initial, err := cfg.Init(prompt.Start{Seed: 1, Std: 1})
	if err != nil {
		t.Fatal(err)
	}
	p, err := cfg.File(initial, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkpoint.WritePrompt(file, p); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func(s *job.Settings)
		want   string // in the error
	}{
		{
			func(s *job.Settings) { s.Method = "lora" },
			"--method: lora, want one of " + strings.Join(job.MethodNames(), ", "),
		},
		{
			func(s *job.Settings) { s.Method, s.Bottleneck = "pt", 4 },
			"--bottleneck: 4, want none with --method pt",
		},
		{
			func(s *job.Settings) { s.InitFrom = "x" },
			"--init-from: x, want one of gaussian, uniform",
		},
		{
			func(s *job.Settings) { s.InitFrom, s.InitText = "uniform", "a" },
			"--init-from: uniform, want nothing beside",
		},
		{
			func(s *job.Settings) { s.Init, s.InitText = "f", "a" },
			"--init-text: a, want nothing beside --init",
		},
		{
			func(s *job.Settings) { s.Method, s.InitText = "svd", "a" },
			"--init-text: a, want gaussian or uniform",
		},
		{
			func(s *job.Settings) { s.Method, s.InitFrom = "svd", "labels" },
			"--init-from: labels, want gaussian or uniform",
		},
		{
			func(s *job.Settings) { s.Method, s.InitFrom, s.Task = "pt", "labels", "record" },
			"task record answers with spans",
		},
		{
			func(s *job.Settings) { s.Init = file },
			"prompt of method dpt has bottleneck 3, want 10",
		},
		{
			func(s *job.Settings) { s.Method, s.Init = "svd", file },
			"method svd starts from random matrices",
		},
		{
			func(s *job.Settings) { s.Method, s.Bottleneck = "svd", 90 },
			"bottleneck is 90, want at most 64: a diagonal of 64 by 100",
		},
	} {
		if _, err := jobtest.TryLoad(c.change); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
}
