// Command dpt-worker runs one worker of a training job; see package worker.
package main

import (
	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/workercmd"
)

func main() { cli.Main("dpt-worker", workercmd.Run("dpt-worker")) }
