package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/cmd/internal/cli"
)

func benchJSON(t *testing.T, args ...string) benchReport {
	t.Helper()
	args = append([]string{"bench"}, args...)
	out := mustRun(t, nil, append(args, "--model", tinyModel, "--prompt-length", "4", "--cpu", "--threads", "2",
		"--passes", "2", "--time", "5ms", "--json")...)
	var r benchReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return r
}

func TestBenchStep(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	shape := []string{"step", "--batch", "3", "--source-length", "30", "--target-length", "2"}
	r := benchJSON(t, shape...)
	if r.Passes != 2 || r.Examples != 3 || r.Tokens != 3*32 || r.PromptTokens != 4 || len(r.Lengths) != 1 ||
		r.Lengths[0][2] != [2]int{30, 2} {
		t.Errorf("2 passes of 3 examples of 30+2 tokens are reported as %+v", r)
	}
	if !near(r.ExamplesPerSecond, 3/r.PassSeconds, 1e-9) || r.FastestSeconds > r.PassSeconds ||
		!near(r.LimitShare, r.DoneGFLOPs/r.LimitGFLOPs, 1e-9) || r.LimitGFLOPs <= 0 {
		t.Errorf("numbers do not fit together: %+v", r)
	}
	if !near(r.MedianOfFastest, r.DoneGFLOPs/r.FastestGFLOPs, 1e-9) ||
		!near(r.FastestShare*r.FastestSeconds, r.MedianOfFastest*r.PassSeconds, 1e-9) ||
		r.FastestGFLOPs < r.LimitGFLOPs {
		t.Errorf("fastest times do not fit: %+v", r)
	}
	var share float64
	parts := make(map[string]bool)
	for _, p := range r.Parts {
		share += p.Share
		parts[p.Part] = true
	}
	if !near(share, 1, 1e-9) || !parts["encoder forward"] || !parts["encoder backward"] || !parts["decoder backward"] ||
		!parts["loss"] {
		t.Errorf("parts %+v are %v of the time, want all of it", r.Parts, share)
	}
	all := r.DoneGFLOPs * r.PassSeconds
	for _, saving := range []string{"absorption", "first-layer", "frozen"} {
		r := benchJSON(t, append(shape, "--without", saving)...)
		if done := r.DoneGFLOPs * r.PassSeconds; done <= all*1.001 || len(r.Without) != 1 {
			t.Errorf("without %s %v GFLOPs are done in a pass, with it %v", saving, done, all)
		}
	}
	// Micro-batches in one call share the first layer's projections of the prompt.
	micro := append(slices.Clone(shape), "--micro-batch", "1")
	together := benchJSON(t, micro...)
	apart := benchJSON(t, append(micro, "--without", "shared-passes")...)
	if done := apart.DoneGFLOPs * apart.PassSeconds; together.DoneGFLOPs*together.PassSeconds >= done ||
		!strings.HasSuffix(together.What, "in micro-batches of 1") {
		t.Errorf("micro-batches together: %+v; one by one: %+v", together, apart)
	}
	text := mustRun(t, nil, "bench", "step", "--shape", "tiny", "--batch", "1", "--source-length", "5",
		"--passes", "1", "--time", "5ms")
	for _, want := range []string{
		"examples/s", "share of the limit", "share of the fastest", "encoder backward",
		"switched off           nothing",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the tables lack %q:\n%s", want, text)
		}
	}
}

func TestBenchData(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	args := []string{"data", "--task", "copa,wic", "--batch", "2", "--batches", "3", "--source-length", "90"}
	r := benchJSON(t, args...)
	if len(r.Lengths) != 6 || r.Examples != 12 {
		t.Fatalf("3 batches of 2 examples from each of 2 tasks are reported as %v", r.Lengths)
	}
	again := benchJSON(t, append(args, "--max-memory", "1")...) // in parts
	padded := benchJSON(t, append(args, "--without", "ragged")...)
	short := false
	for i, batch := range r.Lengths {
		for j, e := range batch {
			short = short || e[0] < 90
			if e[0] > 90 || e[1] < 2 || again.Lengths[i][j] != e || padded.Lengths[i][j] != [2]int{90, e[1]} {
				t.Errorf("example %d of batch %d: lengths %v, again %v, padded %v",
					j, i, e, again.Lengths[i][j], padded.Lengths[i][j])
			}
		}
	}
	if !short {
		t.Error("no source is shorter than 90 tokens, so padding shows nothing")
	}
}

func TestBenchLoad(t *testing.T) {
	var r loadReport
	out := mustRun(t, nil, "bench", "load", "--loads", "2", "--cpu", "--json")
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	if r.Model != "embedded" || r.Engine == "" || r.Loads != 2 {
		t.Errorf("2 loads of the embedded model are reported as %+v", r)
	}
	if r.MappingSeconds <= 0 || r.DigestSeconds <= 0 || r.PackingSeconds <= 0 || r.FastestSeconds > r.WholeSeconds ||
		r.WholeSeconds < r.PackingSeconds {
		t.Errorf("numbers do not fit together: %+v", r)
	}
	text := mustRun(t, nil, "bench", "load", "--loads", "1")
	for _, want := range []string{"mapping", "digest", "packing", "whole", "1 load, medians"} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
}

func TestBenchUsage(t *testing.T) {
	for args, want := range map[string]string{
		"":                            "nothing to measure, want step, data or load",
		"fast":                        "found fast, want step, data or load",
		"step --shape t5-xxl":         "--shape t5-xxl: want t5-small",
		"step --model . --shape tiny": "--model . and --shape tiny, want one of them",
		"step --without speed": "want ragged, frozen, packing, absorption, first-layer, fused, " +
			"target-projection or shared-passes",
		"step --micro-batch -1":            "--micro-batch -1: want at least 0",
		"step --batch 0":                   "--batch 0: want at least 1",
		"data":                             "--tokenizer is missing",
		"data --shape tiny --task squad":   "want one of boolq",
		"data --shape tiny --time -1s":     "want more than 0s",
		"load --loads 0":                   "--loads 0: want at least 1",
		"load --model nowhere":             "--model nowhere: nothing there",
		"step --max-memory -1":             "--max-memory -1: want",
		"step --cpu --gpu 1 --shape tiny":  "--gpu 1 and --cpu",
		"step --shape tiny --tokenizer ab": "unknown flag --tokenizer",
	} {
		code, out, errs := dpt(t, nil, strings.Fields("bench "+args)...)
		if code != cli.ExitUsage || out != "" || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, want) {
			t.Errorf("dpt bench %s: exit %d, stderr %q, want %q", args, code, errs, want)
		}
	}
}
