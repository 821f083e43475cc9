// Command generate writes the model directory that package tiny embeds.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/tiny/internal/weights"
)

func main() {
	out := flag.String("out", "data", "directory to write to")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	files, err := weights.Files()
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := checkpoint.WriteFileAtomic(filepath.Join(dir, name), data); err != nil {
			return err
		}
	}
	return nil
}
