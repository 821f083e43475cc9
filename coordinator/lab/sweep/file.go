package sweep

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/model/checkpoint"
)

// gridFile is the name of a sweep's grid in its directory.
const gridFile = "sweep.json"

// WriteGrid writes g into dir. It returns an error, and leaves the directory as it is, if that
// holds another grid: results of two grids must not mix.
func WriteGrid(dir string, g Grid) error {
	if err := g.Validate(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	data = append(data, '\n')
	path := filepath.Join(dir, gridFile)
	if have, err := os.ReadFile(path); err == nil && !bytes.Equal(have, data) {
		return fmt.Errorf("%s: holds another sweep than the one asked for, want the same flags as before"+
			" or another directory", path)
	} else if err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("sweep directory: %w", err)
	}
	return checkpoint.WriteFileAtomic(path, data)
}

// ReadGrid reads what WriteGrid wrote, and validates it.
func ReadGrid(dir string) (Grid, error) {
	path := filepath.Join(dir, gridFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Grid{}, fmt.Errorf("%s: found no %s, want a directory that dpt sweep wrote", dir, gridFile)
	} else if err != nil {
		return Grid{}, fmt.Errorf("sweep: %w", err)
	}
	var g Grid
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&g); err != nil {
		return Grid{}, fmt.Errorf("%s: %w", path, err)
	}
	if err := g.Validate(); err != nil {
		return Grid{}, fmt.Errorf("%s: %w", path, err)
	}
	return g, nil
}
