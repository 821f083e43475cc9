// Command gen writes the files that package mini embeds. Run it with go generate in dataset/mini.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/dataset/mini/world"
)

func main() {
	if err := write("data"); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// write puts the files under dir.
func write(dir string) error {
	files, err := world.Generate(world.Seed, world.Embedded)
	if err != nil {
		return fmt.Errorf("cannot generate the data set: %w", err)
	}
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("cannot make the task's directory: %w", err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return fmt.Errorf("cannot write the split: %w", err)
		}
	}
	return nil
}
