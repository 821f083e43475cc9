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

// finished makes results for every run of a grid, from a formula, so that tests know every number.
func finished(t *testing.T, dir string, g sweep.Grid, skip func(sweep.Run) bool) {
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
		score := 50 + float64(r.PromptLength%7) + float64(r.Bottleneck%11) + float64(r.Shots)/4 + 2*float64(r.Seed) + float64(len(r.Method))
		x := sweep.Result{Run: r, Parameters: 11240, Metrics: dataset.Metrics{{Name: "accuracy", Value: score}}, Score: score, Steps: 100}
		if r.Method == "svd" {
			for step := int64(0); step <= 100; step += 10 {
				n := int(step) / 5
				x.Evaluations = append(x.Evaluations, sweep.Evaluation{Step: step, Probe: &sweep.Probe{Positive: 100 - n, Negative: n, Rank: 100 - n}})
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

func TestWriteEveryPreset(t *testing.T) {
	figures := map[string]string{
		"table1": "figure1-average-t5_base", "fewshot": "figure4-fewshot-t5_base", "bottleneck": "figure5-bottleneck-t5_base", "length": "figure6-length-t5_base",
		"short": "figure7-short-t5_base", "overparam": "figure8-overparam-t5_base", "rank": "figure9-rank-t5_base", "custom": "",
	}
	for _, name := range sweep.Presets {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if keep := os.Getenv("REPORT_DIR"); keep != "" {
				dir = filepath.Join(keep, name) // to look at the pictures
			}
			finished(t, dir, preset(t, name), nil)
			path, err := Write(dir)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			fig := figures[name]
			if got := strings.Contains(string(text), "!["); got != (fig != "") {
				t.Errorf("report has a figure: %v, want %v", got, fig != "")
			}
			if fig == "" {
				return
			}
			if !strings.Contains(string(text), fig+".svg") {
				t.Errorf("report without %s.svg:\n%s", fig, text)
			}
			f, err := os.Open(filepath.Join(dir, fig+".png"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := png.Decode(f); err != nil {
				t.Errorf("%s.png: %v", fig, err)
			}
			svg, err := os.Open(filepath.Join(dir, fig+".svg"))
			if err != nil {
				t.Fatal(err)
			}
			defer svg.Close()
			for d := xml.NewDecoder(svg); ; {
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
	dir := t.TempDir()
	g := preset(t, "table1")
	finished(t, dir, g, func(r sweep.Run) bool { return r.Method == "pt" && (r.Task == "rte" || r.Task == "cb" && r.Seed == 3) })
	path, err := Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, want := range []string{
		fmt.Sprintf("%d of %d runs are finished", len(g.Runs())-4, len(g.Runs())),
		"| Model | # Trainable | WSC Acc. | WiC Acc. | BoolQ Acc. | CB Acc. | COPA Acc. | MultiRC F1 | ReCoRD F1 | RTE Acc. | Avg. |",
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
	if want := "models/t5-base,pt,100,0,0,,11240,cb,accuracy,2,57,1.4142135623730951,56,58\n"; !strings.Contains(string(table), want) {
		t.Errorf("tables.csv lacks %q:\n%s", want, table)
	}
}

// TestHalving: the tables hold what had the whole budget, the rungs are listed, and so is what the jobs were trained with.
func TestHalving(t *testing.T) {
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
	have := map[string]sweep.Result{}
	for i := 0; i < g.Total(); i++ {
		for _, r := range g.Due(have) {
			if out.Has(r) {
				continue
			}
			score := 100*r.LR + float64(r.Seed)
			x := sweep.Result{Run: r, Parameters: 640, Metrics: dataset.Metrics{{Name: "accuracy", Value: score}}, Score: score, Key: r.Key(),
				Settings: &job.Spec{Epochs: 5, LR: r.LR, TrainExamples: 250, TrainDigest: "0123456789abcdef", ModelDigest: "fedcba", BatchSize: 16}}
			if r.Rung == 0 {
				x.Settings.Epochs = 10
			}
			if err := out.Add(x); err != nil {
				t.Fatal(err)
			}
			have[x.Key] = x
			break
		}
		if i > 0 {
			continue
		}
		path, err := Write(dir)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(path); err != nil || !strings.Contains(string(data), "No run with the whole budget is finished yet.") || strings.Contains(string(data), "## Scores") {
			t.Errorf("report of the first run of the first rung (%v):\n%s", err, data)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	path, err := Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"9 of 9 runs are finished",
		"| model | models/t5-base, SHA-256 fedcba |", "| training data | cb: 250 examples, SHA-256 0123456789ab |", "| epochs | 5 in rung 1; 10 |", "| learning rate | DPT 0.1; DPT 0.5 |", "| batch size | 16 |",
		"| cb | DPT, c = 100, b = 10, lr = 0.1, models/t5-base | 1 | 5 epochs | 12.00 |", "| cb | DPT, c = 100, b = 10, lr = 0.5, models/t5-base | 1 | 5 epochs | 52.00 |",
		"| cb | DPT, c = 100, b = 10, lr = 0.5, models/t5-base | last | 10 epochs | 52.00 |",
		"| DPT | 640 | 52.00 | 52.00 |",
	} {
		if !strings.Contains(string(data), want) {
			t.Errorf("report lacks %q:\n%s", want, data)
		}
	}
	if strings.Contains(string(data), "| DPT, lr = 0.1") {
		t.Errorf("the tables hold a run without the whole budget:\n%s", data)
	}
}

func TestWriteWithoutResults(t *testing.T) {
	dir := t.TempDir()
	if _, err := Write(dir); err == nil || !strings.Contains(err.Error(), "found no sweep.json") {
		t.Errorf("empty directory: error %v, want one that names sweep.json", err)
	}
	finished(t, dir, preset(t, "custom"), func(sweep.Run) bool { return true })
	if _, err := Write(dir); err == nil || !strings.Contains(err.Error(), "no finished run") {
		t.Errorf("no results: error %v, want one that says so", err)
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int64]string{640: "640", 11240: "11K", 102400: "102K", 924900: "925K", 60506624: "60.5M", 222903552: "222.9M", 737668096: "737.7M"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %s, want %s", n, got, want)
		}
	}
}
