package dataset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/dataset/mini"
)

// wantDir describes a data directory, for errors.
const wantDir = "a directory with BoolQ, CB, COPA and so on inside"

// OpenDir returns the file system of a data directory, which holds a directory for each task. "" is
// the data set embedded in the program (package mini). On the result, errors of Load name files by
// paths that include dir.
func OpenDir(dir string) (fs.FS, error) {
	if dir == "" {
		return namedFS{FS: mini.FS(), dir: "embedded"}, nil
	}
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("data directory %q does not exist, want %s", dir, wantDir)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the data directory: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("data directory %q is a file, want %s", dir, wantDir)
	}
	return namedFS{FS: os.DirFS(dir), dir: dir}, nil
}

// namedFS is a file system whose files have names for errors that start with dir.
type namedFS struct {
	fs.FS
	dir string
}

// displayPath is the name of a file of a file system in errors.
func displayPath(fsys fs.FS, name string) string {
	if n, ok := fsys.(namedFS); ok {
		return filepath.Join(n.dir, filepath.FromSlash(name))
	}
	return name
}
