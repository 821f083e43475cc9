package tiny

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/dptune/dpt/model/tinyrandom"
)

// TestGenerated makes the files anew: what is embedded is what the code gives.
func TestGenerated(t *testing.T) {
	dir := tinyrandom.Dir(t)
	made, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := fs.ReadDir(FS(), ".")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(made) {
		t.Errorf("%d files are embedded, want %d", len(entries), len(made))
	}
	for _, e := range made {
		want, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got, err := fs.ReadFile(FS(), e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from what the generator writes: run go generate ./model/tiny", e.Name())
		}
	}
}
