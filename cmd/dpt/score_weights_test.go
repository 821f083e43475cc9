package main

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/dptune/dpt/model/checkpoint"
)

// TestScoreWeightGrad: there is a tensor for every weight. The gradient is that of the mean loss,
// so a file with every line twice has the same gradient.
func TestScoreWeightGrad(t *testing.T) {
	dir := t.TempDir()
	line := `{"source": "premise: a", "target": "1"}` + "\n" + `{"source": "b", "target": "no"}` + "\n"
	once, twice := writeFile(t, dir, "once", line), writeFile(t, dir, "twice", line+line)
	read := func(data string) *checkpoint.File {
		out := filepath.Join(dir, filepath.Base(data)+".safetensors")
		mustRun(t, nil, "score", "--data", data, "--weight-grad", out)
		f, err := checkpoint.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	a, b := read(once), read(twice)
	w, err := openWeights(tinyModel)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Names()) != len(w.params) {
		t.Errorf("%d gradients, want one for each of %d weights", len(a.Names()), len(w.params))
	}
	for _, p := range w.params {
		var values [2][]float32
		for i, f := range []*checkpoint.File{a, b} {
			tensor, err := f.Tensor(p.Name)
			if err != nil {
				t.Fatal(err)
			}
			if values[i], err = tensor.Float32(); err != nil || len(values[i]) != p.Size() {
				t.Fatalf("%s: %d numbers (%v), want %d", p.Name, len(values[i]), err, p.Size())
			}
		}
		var norm, diff float64
		for i, v := range values[0] {
			norm += float64(v) * float64(v)
			diff += math.Pow(float64(v-values[1][i]), 2)
		}
		if norm == 0 || diff > 1e-10*norm {
			t.Errorf("%s: the gradient's norm is %g, and %g away with everything twice",
				p.Name, math.Sqrt(norm), math.Sqrt(diff))
		}
	}
	for _, bad := range [][]string{
		{"--prompt", writePrompt(t, dir, "p.safetensors", newPrompt(t))}, {"--logits", filepath.Join(dir, "x")},
	} {
		args := append([]string{"score", "--data", once, "--weight-grad", filepath.Join(dir, "x")}, bad...)
		if code, _, _ := dpt(t, nil, args...); code != 2 {
			t.Errorf("%v: exit %d, want 2", bad, code)
		}
	}
}
