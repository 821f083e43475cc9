// Package device is the flags by which the programs choose what computes.
package device

import (
	"fmt"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/model"
)

// Flags are --gpu, --cpu and --threads.
type Flags struct {
	gpu     int
	cpu     bool
	threads int
}

// Bind adds the flags to the group.
func (f *Flags) Bind(g *cli.Group) {
	f.gpu = -1
	g.Int(&f.gpu, "gpu", "compute on GPU `N`; an error where there is none", cli.AtLeast(0)).DefaultText("the best engine found")
	g.Bool(&f.cpu, "cpu", "compute on the CPU")
	g.Int(&f.threads, "threads", "CPU threads, `N`; 0 is one per core; results do not depend on it", cli.AtLeast(0))
}

// Options are what the flags ask for; call it after cmd.Parse. A GPU that this build cannot use is an error at once,
// before anything is loaded or joined.
func (f *Flags) Options(cmd *cli.Command) (model.Options, error) {
	o := model.Options{Device: model.Auto, Threads: f.threads}
	switch {
	case f.cpu && f.gpu >= 0:
		return o, cmd.Usagef("--gpu %d and --cpu, want one of them or neither", f.gpu)
	case f.cpu:
		o.Device = model.CPU
	case f.gpu >= 0:
		o.Device = model.GPU(f.gpu)
		if err := o.Device.Check(); err != nil {
			return o, fmt.Errorf("--gpu %d: %w", f.gpu, err)
		}
	}
	return o, nil
}
