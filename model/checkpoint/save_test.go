package checkpoint

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestBF16(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range []struct{ in, want float32 }{
		{0, 0}, {1, 1}, {-2.5, -2.5}, {1 + 1.0/256, 1}, {1 + 3.0/256, 1 + 4.0/256},
		{1 + 1.0/256 + 1.0/65536, 1 + 2.0/256},
		{inf, inf}, {-inf, -inf}, {math.MaxFloat32, inf}, {math.SmallestNonzeroFloat32, 0},
	} {
		got, err := BF16("x", []int{1}, []float32{c.in}).Float32()
		if err != nil {
			t.Fatal(err)
		}
		if got[0] != c.want {
			t.Errorf("%v rounds to %v, want %v", c.in, got[0], c.want)
		}
	}
	got, err := BF16("x", []int{1}, []float32{float32(math.NaN())}).Float32()
	if err != nil || got[0] == got[0] {
		t.Errorf("NaN rounds to %v (%v), want NaN", got, err)
	}
}

func TestWriteModel(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "model")
	data := []float32{1, 2, 3, 4, 5, 6}
	tensors := []Tensor{F32("w", []int{2, 3}, data), BF16("v", []int{6}, data)}
	tokenizer := map[string][]byte{"tokenizer_config.json": []byte("{}")}
	for range 2 { // the second time over the files of the first
		if err := WriteModel(dir, []byte(`{"model_type":"t5"}`), tensors, tokenizer); err != nil {
			t.Fatal(err)
		}
	}
	m, err := OpenModel(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for name, shape := range map[string][]int{"w": {2, 3}, "v": {6}} {
		if got, err := m.Float32(name, shape...); err != nil || !slices.Equal(got, data) {
			t.Errorf("%s is %v (%v), want %v", name, got, err, data)
		}
	}
	if extra, err := os.ReadFile(filepath.Join(dir, "tokenizer_config.json")); err != nil || string(extra) != "{}" {
		t.Errorf("tokenizer_config.json is %q (%v)", extra, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := WriteModel(filepath.Join(dir, "file"), nil, nil, nil); err == nil {
		t.Error("a model was written into a file")
	}
}
