// Package device is the flags by which the programs choose what computes.
package device

import (
	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/model"
)

// Flags are --gpu, --cpu, --engine, --dtype, --threads and --max-memory.
type Flags struct {
	gpu     int
	cpu     bool
	engine  string
	dtype   string
	threads int
	memory  int // MiB
}

// Bind adds the flags to the group.
func (f *Flags) Bind(g *cli.Group) {
	f.gpu, f.engine, f.dtype = -1, "auto", "auto"
	g.Int(&f.gpu, "gpu", "compute on GPU `N`; an error where there is none", cli.AtLeast(0)).DefaultText("the best engine found")
	g.Bool(&f.cpu, "cpu", "compute on the CPU")
	g.String(&f.engine, "engine", "compute with engine `NAME`: auto, onednn or portable, as far as the build has them")
	g.String(&f.dtype, "dtype", "compute products in `TYPE`: f32, bf16, or auto, which is f32")
	g.Int(&f.threads, "threads", "CPU threads, `N`; 0 is one per core; results do not depend on it", cli.AtLeast(0))
	g.Int(&f.memory, "max-memory", "keep about `MIB` in memory at most beside the weights, in MiB, by computing a batch in parts; 0 is 1024; results do not depend on it", cli.Between(0, 1<<30))
}

// Options are what the flags ask for; call it after cmd.Parse. What this build cannot do is an error at once,
// before anything is loaded or joined.
func (f *Flags) Options(cmd *cli.Command) (model.Options, error) {
	o := model.Options{Device: model.Auto, Engine: f.engine, DType: f.dtype, Threads: f.threads, MaxMemory: int64(f.memory) << 20}
	switch {
	case f.cpu && f.gpu >= 0:
		return o, cmd.Usagef("--gpu %d and --cpu, want one of them or neither", f.gpu)
	case f.cpu:
		o.Device = model.CPU
	case f.gpu >= 0:
		o.Device = model.GPU(f.gpu)
	}
	return o, o.Check()
}
