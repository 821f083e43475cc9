package tiny

import (
	"bytes"
	"io/fs"
	"slices"
	"testing"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/tiny/internal/weights"
)

// TestGenerated makes the files anew: what is embedded is what the code gives.
func TestGenerated(t *testing.T) {
	want, err := weights.Files()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := fs.ReadDir(FS(), ".")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) {
		t.Errorf("%d files are embedded, want %d", len(entries), len(want))
	}
	total := 0
	for name, data := range want {
		got, err := fs.ReadFile(FS(), name)
		if err != nil {
			t.Fatal(err)
		}
		total += len(got)
		if !bytes.Equal(got, data) {
			t.Errorf("%s differs from what the generator writes: run go generate ./model/tiny", name)
		}
	}
	if total >= 1_000_000 {
		t.Errorf("the model is %d bytes, want less than 1 MB", total)
	}
}

func TestOpens(t *testing.T) {
	m, err := checkpoint.OpenModelFS(FS(), "tiny")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if n := len(m.Names()); n != 1+2*8+1+1+2*13+1+1 {
		t.Errorf("%d tensors: %q", n, m.Names())
	}
	v, err := m.Float32("shared.weight", 384, 64)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Equal(v[:64], v[64:128]) {
		t.Error("two tokens have the same embedding")
	}
}
