package provenance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dptune/dpt/model/lab/pretrain"
)

func TestLastLook(t *testing.T) {
	const train = `{"step":4,"loss":1,"tokens":9}` + "\n"
	all := func(step, exact string) string {
		return `{"step":` + step + `,"kind":"copy","examples":3,"held_out_loss":0.5,"exact":1}` + "\n" +
			`{"step":` + step + `,"kind":"all","examples":4,"held_out_loss":0.7,"exact":` + exact + "}\n"
	}
	for name, c := range map[string]struct {
		metrics string
		want    []Look // nil: an error
	}{
		"the last": {train + all("4", "0.2") + train + all("8", "0.3") + train,
			[]Look{{8, "copy", 3, 0.5, 1}, {8, "all", 4, 0.7, 0.3}}},
		"made twice": {all("8", "0.3") + all("8", "0.4"), []Look{{8, "copy", 3, 0.5, 1}, {8, "all", 4, 0.7, 0.4}}},
		"none":       {train, nil},
		"torn":       {all("8", "0.3") + `{"st`, nil},
	} {
		path := filepath.Join(t.TempDir(), "metrics.jsonl")
		if err := os.WriteFile(path, []byte(c.metrics), 0o666); err != nil {
			t.Fatal(err)
		}
		got, err := lastLook(path)
		if (err != nil) != (c.want == nil) || err == nil &&
			(len(got) != 2 || got[0] != c.want[0] || got[1] != c.want[1]) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
}

func TestCommand(t *testing.T) {
	s := pretrain.DefaultSettings()
	s.Seed, s.Steps, s.Optimizer.LR, s.Model.NumDecoderLayers = 7, 500, 0.004, 3
	got := command(pretrain.Record{Settings: s, Numerics: "onednn 2.6.3/bf16/avx2/0123"})
	for _, want := range []string{
		"dpt pretrain --out DIR --engine onednn --dtype bf16 --seed 7 --steps 500 ", " --lr 0.004 ", " --spans 0.05 ",
		" --d-model 192 ", " --decoder-layers 3",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}
