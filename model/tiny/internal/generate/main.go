// Command generate writes the model directory that package tiny embeds.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/dptune/dpt/model/tinyrandom"
)

func main() {
	out := flag.String("out", "data", "directory to write to")
	flag.Parse()
	if err := tinyrandom.Write(*out); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}
