package dataset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/dataset/mini"
)

// OpenDir returns the file system of a data directory, which holds a directory for each task. "" is the data set embedded in the
// program (package mini). Errors of Load on the result name files by paths that include dir.
func OpenDir(dir string) (fs.FS, error) {
	if dir == "" {
		return named{FS: mini.FS(), dir: "embedded"}, nil
	}
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("data directory %q does not exist, want a directory with BoolQ, CB, COPA and so on inside", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the data directory: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("data directory %q is a file, want a directory with BoolQ, CB, COPA and so on inside", dir)
	}
	return named{FS: os.DirFS(dir), dir: dir}, nil
}

// named is a file system that knows how to call its files in errors.
type named struct {
	fs.FS
	dir string
}

// display is how a file of a file system is called in errors.
func display(fsys fs.FS, name string) string {
	if n, ok := fsys.(named); ok {
		return filepath.Join(n.dir, filepath.FromSlash(name))
	}
	return name
}
