package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/dptune/dpt/cmd/internal/cmdtest"
)

// TestPretrain trains a model of the world's texts, goes on with it, and scores with it.
func TestPretrain(t *testing.T) {
	out := filepath.Join(t.TempDir(), "model")
	args := []string{
		"pretrain", "--out", out, "--d-model", "16", "--d-ff", "16", "--heads", "2", "--d-kv", "8",
		"--layers", "1", "--decoder-layers", "1", "--engine", "portable", "--threads", "2",
		"--steps", "3", "--warmup", "1", "--decay", "1", "--batch-tokens", "400", "--micro-batches", "2",
		"--log-every", "1", "--eval-every", "3", "--eval-examples", "8",
	}
	for _, want := range []string{"msg=trained step=3 of=3", "msg=\"goes on where it was\" step=3"} {
		code, _, errs := dpt(t, nil, args...)
		if code != 0 || !strings.Contains(errs, want) {
			t.Fatalf("exit %d, log %s\nwant %s", code, errs, want)
		}
	}
	metrics := string(cmdtest.ReadFile(t, out, "metrics.jsonl"))
	if strings.Count(metrics, `"loss"`) != 3 || !strings.Contains(metrics, `"held_out_loss"`) {
		t.Errorf("metrics.jsonl holds %s", metrics)
	}
	pairs := writeFile(t, t.TempDir(), "pairs", `{"source": "yes=a no=b: yes", "target": "a"}`+"\n")
	mustRun(t, nil, "score", "--model", out, "--data", pairs, "--engine", "portable")
	code, _, errs := dpt(t, nil, append(args, "--seed", "2")...)
	if code == 0 || !strings.Contains(errs, "started with") {
		t.Errorf("a run with another seed: exit %d, %s", code, errs)
	}
	for _, bad := range [][]string{
		{"--steps", "0"}, {"--micro-batches", "0"},
		{"--documents", pairs, "--spans", "0.5"}, {"--pairs", pairs, "--spans", "0.5"},
	} {
		if code, _, _ := dpt(t, nil, append([]string{"pretrain", "--out", out}, bad...)...); code == 0 {
			t.Errorf("%v was taken", bad)
		}
	}
}

// TestLessons: every lesson's streams are there, and each begins where the one before ends.
func TestLessons(t *testing.T) {
	var from uint64
	for _, l := range lessons {
		if l.until <= from || l.streams == "" {
			t.Errorf("a lesson of %q from %d to %d, want some pairs of some streams", l.streams, from, l.until)
		}
		for i := range uint64(len(l.streams)) {
			p, kind := worldPair(1, from+i)
			if p.Source == "" || p.Target == "" || kind == "" {
				t.Errorf("pair %d is %+v of kind %q", from+i, p, kind)
			}
			letter := l.streams[(from+i)%uint64(len(l.streams))]
			if letter == 'c' && kind != "copy" && kind != "map" || letter == 'k' && !strings.HasPrefix(kind, "keys-") {
				t.Errorf("pair %d of stream %c is of kind %q", from+i, letter, kind)
			}
		}
		from = l.until
	}
}
