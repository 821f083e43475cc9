package report

import (
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/lab/sweep"
	"github.com/dptune/dpt/dataset"
)

// writeResults writes a sweep with a result for every run of a grid but those to skip. The scores
// come from a formula, so that tests know every number.
func writeResults(t *testing.T, dir string, g sweep.Grid, skip func(sweep.Run) bool) {
	t.Helper()
	if err := sweep.WriteGrid(dir, g); err != nil {
		t.Fatal(err)
	}
	out, err := sweep.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range g.Runs() {
		if skip != nil && skip(r) {
			continue
		}
		score := 50 + float64(r.PromptLength%7) + float64(r.Bottleneck%11) + float64(r.Shots)/4 +
			2*float64(r.Seed) + float64(len(r.Method))
		x := sweep.Result{
			Run:        r,
			Parameters: 11240,
			Metrics:    dataset.Metrics{{Name: "accuracy", Value: score}},
			Score:      score,
			Steps:      100,
		}
		if r.Method == "svd" {
			for step := int64(0); step <= 100; step += 10 {
				n := int(step) / 5
				probe := &sweep.Probe{Positive: 100 - n, Negative: n, Rank: 100 - n}
				x.Evaluations = append(x.Evaluations, sweep.Evaluation{Step: step, Probe: probe})
			}
		}
		if err := out.Add(x); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

func preset(t *testing.T, name string) sweep.Grid {
	t.Helper()
	g, err := sweep.Preset(name, []string{"models/t5-base"})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// render writes the report of dir and returns its text.
func render(t *testing.T, dir string) string {
	t.Helper()
	path, err := Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestWriteEveryPreset(t *testing.T) {
	figures := map[string]string{ // by preset
		"table1":     "figure1-average-t5_base",
		"fewshot":    "figure4-fewshot-t5_base",
		"bottleneck": "figure5-bottleneck-t5_base",
		"length":     "figure6-length-t5_base",
		"short":      "figure7-short-t5_base",
		"overparam":  "figure8-overparam-t5_base",
		"rank":       "figure9-rank-t5_base",
		"custom":     "",
	}
	for _, name := range sweep.Presets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if keep := os.Getenv("REPORT_DIR"); keep != "" {
				dir = filepath.Join(keep, name) // to look at the pictures
			}
			writeResults(t, dir, preset(t, name), nil)
			text := render(t, dir)
			fig := figures[name]
			if got := strings.Contains(text, "!["); got != (fig != "") {
				t.Errorf("report has a figure: %v, want %v", got, fig != "")
			}
			if fig == "" {
				return
			}
			if !strings.Contains(text, fig+".svg") {
				t.Errorf("report without %s.svg:\n%s", fig, text)
			}
			if _, err := png.Decode(open(t, filepath.Join(dir, fig+".png"))); err != nil {
				t.Errorf("%s.png: %v", fig, err)
			}
			for d := xml.NewDecoder(open(t, filepath.Join(dir, fig+".svg"))); ; {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%s.svg: %v", fig, err)
				}
			}
		})
	}
}

func TestTables(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := preset(t, "table1")
	writeResults(t, dir, g, func(r sweep.Run) bool {
		return r.Method == "pt" && (r.Task == "rte" || r.Task == "cb" && r.Seed == 3)
	})
	text := render(t, dir)
	for _, want := range []string{
		fmt.Sprintf("%d of %d runs are finished", len(g.Runs())-4, len(g.Runs())),
		"| Model | # Trainable | WSC Acc. | WiC Acc. | BoolQ Acc. | CB Acc. | COPA Acc. | MultiRC F1 |" +
			" ReCoRD F1 | RTE Acc. | Avg. |",
		"| **models/t5-base** |",
		// 50 + 100%7 + 10 + 4 (the mean of 2·seed) + 3
		"| DPT | 11K | 69.00 | 69.00 | 69.00 | 69.00 | 69.00 | 69.00 | 69.00 | 69.00 | 69.00 |",
		// without RTE no average; CB has the mean of seeds 1 and 2
		"| Prompt Tuning | 11K | 58.00 | 58.00 | 58.00 | 57.00 (2 of 3 seeds) | 58.00 | 58.00 | 58.00 | – | – |",
		"| Residual PT, c = 10 |", "| Residual PT, c = 100 |",
		"## Standard deviation", "| DPT | 2.00 | 2.00 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("report lacks %q:\n%s", want, text)
		}
	}
	table, err := os.ReadFile(filepath.Join(dir, "tables.csv"))
	if err != nil {
		t.Fatal(err)
	}
	want := "models/t5-base,pt,100,0,0,,11240,cb,accuracy,2,57,1.4142135623730951,56,58\n"
	if !strings.Contains(string(table), want) {
		t.Errorf("tables.csv lacks %q:\n%s", want, table)
	}
}

// TestHalving: the tables hold the runs with the whole budget; the report lists the rungs, and the
// settings that the jobs were trained with.
func TestHalving(t *testing.T) {
	t.Parallel()
	g := preset(t, "custom")
	g.Tasks, g.Halving, g.Settings.Epochs = []string{"cb"}, &sweep.Halving{Eta: 2, Rungs: 2}, 10
	g.VaryLearningRates([]sweep.Rate{{LR: 0.1}, {LR: 0.5}})
	dir := t.TempDir()
	if err := sweep.WriteGrid(dir, g); err != nil {
		t.Fatal(err)
	}
	out, err := sweep.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	byKey := map[string]sweep.Result{}
	for i := range g.Total() {
		for _, r := range g.Due(byKey) {
			if out.Has(r) {
				continue
			}
			score := 100*r.LR + float64(r.Seed)
			x := sweep.Result{
				Run:        r,
				Key:        r.Key(),
				Parameters: 640,
				Metrics:    dataset.Metrics{{Name: "accuracy", Value: score}},
				Score:      score,
				Settings: &job.Spec{
					Epochs:        5,
					LR:            r.LR,
					TrainExamples: 250,
					TrainDigest:   "0123456789abcdef",
					ModelDigest:   "fedcba",
					BatchSize:     16,
				},
			}
			if r.Rung == 0 {
				x.Settings.Epochs = 10
			}
			if err := out.Add(x); err != nil {
				t.Fatal(err)
			}
			byKey[x.Key] = x
			break
		}
		if i > 0 {
			continue
		}
		text := render(t, dir)
		if !strings.Contains(text, "No run with the whole budget is finished yet.") ||
			strings.Contains(text, "## Scores") {
			t.Errorf("report of the first run of the first rung:\n%s", text)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	text := render(t, dir)
	for _, want := range []string{
		"9 of 9 runs are finished",
		"| model | models/t5-base, SHA-256 fedcba |",
		"| training data | cb: 250 examples, SHA-256 0123456789ab |",
		"| epochs | 5 in rung 1; 10 |",
		"| learning rate | DPT 0.1; DPT 0.5 |",
		"| batch size | 16 |",
		"| cb | DPT, c = 100, b = 10, lr = 0.1, models/t5-base | 1 | 5 epochs | 12.00 |",
		"| cb | DPT, c = 100, b = 10, lr = 0.5, models/t5-base | 1 | 5 epochs | 52.00 |",
		"| cb | DPT, c = 100, b = 10, lr = 0.5, models/t5-base | last | 10 epochs | 52.00 |",
		"| DPT | 640 | 52.00 | 52.00 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("report lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "| DPT, lr = 0.1") {
		t.Errorf("the tables hold a run without the whole budget:\n%s", text)
	}
}

func TestWriteWithoutResults(t *testing.T) {
	dir := t.TempDir()
	if _, err := Write(dir); err == nil || !strings.Contains(err.Error(), "found no sweep.json") {
		t.Errorf("empty directory: error %v, want one that names sweep.json", err)
	}
	writeResults(t, dir, preset(t, "custom"), func(sweep.Run) bool { return true })
	if _, err := Write(dir); err == nil || !strings.Contains(err.Error(), "no finished run") {
		t.Errorf("no results: error %v, want one with %q", err, "no finished run")
	}
}

func TestCountText(t *testing.T) {
	for _, c := range []struct {
		n    int64
		want string
	}{
		{640, "640"},
		{11240, "11K"},
		{102400, "102K"},
		{924900, "925K"},
		{60506624, "60.5M"},
		{222903552, "222.9M"},
		{737668096, "737.7M"},
	} {
		if got := countText(c.n); got != c.want {
			t.Errorf("countText(%d) = %s, want %s", c.n, got, c.want)
		}
	}
}
