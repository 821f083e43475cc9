package sweep

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/dataset"
)

func TestPresets(t *testing.T) {
	runs := map[string]int{ // tasks × methods × sizes × seeds, from the paper's sections
		"table1":     8 * 5 * 3,
		"fewshot":    8 * 3 * 3 * 3,
		"bottleneck": 4 * (6 + 2) * 3,
		"length":     4 * 3 * 3 * 3,
		"short":      2 * 2 * 3 * 3,
		"overparam":  3 * 3,
		"rank":       3,
		"custom":     8 * 3,
	}
	for _, name := range Presets {
		g, err := Preset(name, []string{""})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Validate(); err != nil {
			t.Error(err)
		}
		if got := len(g.Runs()); got != runs[name] {
			t.Errorf("preset %s has %d runs, want %d", name, got, runs[name])
		}
		for _, task := range g.Tasks {
			if _, err := dataset.Lookup(task); err != nil {
				t.Errorf("preset %s: %v", name, err)
			}
		}
	}
	if _, err := Preset("table2", nil); err == nil || !strings.Contains(err.Error(), "want one of table1") {
		t.Errorf("unknown preset: error %v, want the names", err)
	}
}

func TestRestrictMethods(t *testing.T) {
	g, err := Preset("table1", []string{""})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.RestrictMethods([]string{"dpt", "respt-10", "svd"}); err != nil {
		t.Fatal(err)
	}
	if want := []Prompt{dpt, shortRespt, probe}; !reflect.DeepEqual(g.Prompts, want) {
		t.Errorf("prompts %v, want %v", g.Prompts, want)
	}
	g, _ = Preset("length", []string{""})
	if err := g.RestrictMethods([]string{"respt"}); err != nil {
		t.Fatal(err)
	}
	if len(g.Prompts) != 3 {
		t.Errorf("preset length restricted to respt has %v, want its three lengths", g.Prompts)
	}
	if err := g.RestrictMethods([]string{"lora"}); err == nil || !strings.Contains(err.Error(), "respt-10") {
		t.Errorf("unknown method: error %v, want the names", err)
	}
}

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		run  Run
		want string
	}{
		{Run{Task: "rte", Method: "dpt", PromptLength: 100, Bottleneck: 10, Seed: 42},
			"embedded-rte-dpt-c100-b10-seed42"},
		{Run{Model: "google-t5/t5-large/", Task: "cb", Method: "pt", PromptLength: 20, Shots: 16, Seed: 1},
			"t5_large-cb-pt-c20-k16-seed1"},
		{Run{Model: "../..", Task: "wic", Method: "ft", Seed: 1}, "..-wic-ft-seed1"},
		{Run{Model: "a/../etc passwd\\", Task: "wic", Method: "ft", Seed: 1}, "etc_passwd_-wic-ft-seed1"},
	} {
		if got := c.run.Key(); got != c.want {
			t.Errorf("key %q, want %q", got, c.want)
		}
	}
	g := Grid{
		Preset:  "custom",
		Models:  []string{"a/t5", "b/t5"},
		Tasks:   []string{"rte"},
		Prompts: []Prompt{dpt},
		Shots:   []int{0},
		Seeds:   []uint64{1},
	}
	if err := g.Validate(); err == nil || !strings.Contains(err.Error(), "both called t5-rte") {
		t.Errorf("two models of one name: error %v, want it refused", err)
	}
}

func TestVaryLearningRates(t *testing.T) {
	g := Grid{
		Preset:  "custom",
		Models:  []string{""},
		Tasks:   []string{"rte"},
		Prompts: []Prompt{ft, pt, dpt},
		Shots:   []int{0},
		Seeds:   []uint64{1},
	}
	g.Settings.LR = 0.3
	g.VaryLearningRates([]Rate{{"", 0.1}, {"pt", 0.5}, {"", 0.03}, {"ft", 1e-5}})
	var got []string
	for _, r := range g.Runs() {
		got = append(got, fmt.Sprint(r.Key(), " ", g.settings(r).LR))
	}
	want := []string{
		"embedded-rte-ft-lr0.00001-seed1 1e-05",
		"embedded-rte-pt-c100-lr0.5-seed1 0.5",
		"embedded-rte-dpt-c100-b10-lr0.1-seed1 0.1",
		"embedded-rte-dpt-c100-b10-lr0.03-seed1 0.03",
	}
	if !slices.Equal(got, want) {
		t.Errorf("runs %q, want %q", got, want)
	}
	if err := g.Validate(); err != nil {
		t.Error(err)
	}
	g.Prompts = []Prompt{pt, dpt}
	g.VaryLearningRates([]Rate{{"pt", 0.5}})
	if lr := g.settings(g.Runs()[1]).LR; lr != 0.3 {
		t.Errorf("dpt has the learning rate %v, want the shared 0.3", lr)
	}
}

// resultWith is a result of a run with the seed.
func resultWith(seed uint64) Result {
	return Result{
		Run:        Run{Task: "rte", Method: "dpt", PromptLength: 100, Bottleneck: 10, Seed: seed},
		Parameters: 11240,
		Metrics:    dataset.Metrics{{Name: "accuracy", Value: 61.5}},
		Score:      61.5,
		BestStep:   40,
		Steps:      100,
		Evaluations: []Evaluation{
			{Step: 40, Score: 61.5, Loss: 0.7, Probe: &Probe{Positive: 3, Negative: 97, Rank: 3}},
		},
	}
}

// TestResultsAfterAKill cuts a results file at every seventh byte: the whole lines survive, and the
// runs cut off can be added again.
func TestResultsAfterAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(3) {
		if err := out.Add(resultWith(seed)); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Add(resultWith(2)); err == nil || !strings.Contains(err.Error(), "has a result already") {
		t.Errorf("the same run twice: error %v, want it refused", err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, File))
	if err != nil {
		t.Fatal(err)
	}
	for cut := 0; cut <= len(whole); cut += 7 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, File), whole[:cut], 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := Open(dir)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		kept := strings.Count(string(whole[:cut]), "\n")
		for seed := range uint64(3) {
			if got := out.Has(resultWith(seed).Run); got != (int(seed) < kept) {
				t.Errorf("cut at %d: run %d has a result: %v", cut, seed, got)
			}
			if int(seed) >= kept {
				if err := out.Add(resultWith(seed)); err != nil {
					t.Fatal(err)
				}
			}
		}
		out.Close()
		again, err := os.ReadFile(filepath.Join(dir, File))
		if err != nil || string(again) != string(whole) {
			t.Errorf("cut at %d and added again: %d bytes (%v), want the %d of the undisturbed file",
				cut, len(again), err, len(whole))
		}
	}
}

func TestReadRefuses(t *testing.T) {
	const line = `{"task":"rte","method":"dpt","seed":1,"key":"embedded-rte-dpt-seed1"}` + "\n"
	for _, c := range []struct{ name, data, want string }{
		{"no JSON", "{\n", "results.jsonl:1:"},
		{"foreign key", strings.Replace(line, "embedded-rte-dpt-seed1", "x", 1),
			`found key "x", want "embedded-rte-dpt-seed1"`},
		{"twice", line + line, "results.jsonl:2: run embedded-rte-dpt-seed1 is on line 1 already"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, File), []byte(c.data), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
		if _, err := Open(dir); err == nil {
			t.Errorf("%s: opened for more results", c.name)
		}
	}
	if _, err := Read(t.TempDir()); err == nil || !strings.Contains(err.Error(), "found no results.jsonl") {
		t.Errorf("no file: error %v", err)
	}
}

func TestGridFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	g, err := Preset("length", []string{"", "t5-base"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time a sweep goes on
		if err := WriteGrid(dir, g); err != nil {
			t.Fatal(err)
		}
	}
	back, err := ReadGrid(dir)
	if err != nil || !reflect.DeepEqual(back, g) {
		t.Errorf("read %+v (%v), want %+v", back, err, g)
	}
	g.Seeds = g.Seeds[:1]
	if err := WriteGrid(dir, g); err == nil || !strings.Contains(err.Error(), "holds another sweep") {
		t.Errorf("another grid in the same directory: error %v, want it refused", err)
	}
}

func TestVaryPrompts(t *testing.T) {
	g, err := Preset("table1", []string{""})
	if err != nil {
		t.Fatal(err)
	}
	g.VaryLengths([]int{5, 7})
	g.VaryBottlenecks([]int{2, 3})
	want := []Prompt{
		ft,
		{Method: "pt", Length: 5}, {Method: "pt", Length: 7},
		shortRespt,
		{Method: "respt", Length: 5}, {Method: "respt", Length: 7},
		{Method: "dpt", Length: 5, Bottleneck: 2}, {Method: "dpt", Length: 5, Bottleneck: 3},
		{Method: "dpt", Length: 7, Bottleneck: 2}, {Method: "dpt", Length: 7, Bottleneck: 3},
	}
	if !reflect.DeepEqual(g.Prompts, want) {
		t.Errorf("prompts %v, want %v", g.Prompts, want)
	}
	if err := g.Validate(); err != nil {
		t.Error(err)
	}
}
