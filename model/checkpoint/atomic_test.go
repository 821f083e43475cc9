package checkpoint

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteFileAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, want := range []string{"first", "second, longer", ""} {
		if err := WriteFileAtomic(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("read %q, want %q (%v)", got, want, err)
		}
	}
	onlyFile(t, dir)

	// A write that fails half-way leaves the old file and nothing else.
	broken := errors.New("broken")
	if err := WriteFileAtomic(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	err := writeAtomic(path, func(w io.Writer) error {
		if _, err := w.Write(make([]byte, 5<<20)); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) || err.Error() != "write "+path+": broken" {
		t.Errorf("error %v", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Errorf("the old file became %q", got)
	}
	onlyFile(t, dir)
}

func TestWriteFileAtomicRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "none", "f")
	if err := WriteFileAtomic(path, nil); !errors.Is(err, os.ErrNotExist) ||
		err.Error() != "write "+path+": no such file or directory" {
		t.Errorf("missing directory: error %v", err)
	}
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := WriteFileAtomic(sub, nil); err == nil || !strings.HasPrefix(err.Error(), "write "+sub+": ") {
		t.Errorf("over a directory: error %v", err)
	}
	onlyFile(t, dir)
}

// onlyFile checks that dir has one entry: no temporary file was left.
func onlyFile(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("found %v, want one entry (%v)", entries, err)
	}
}
