// Package device has the flags by which the programs choose the engine and its device.
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
	g.Int(&f.gpu, "gpu", "compute on GPU `N`; an error for now, since there is no engine for GPUs yet", cli.AtLeast(0)).
		DefaultText("the CPU")
	g.Bool(&f.cpu, "cpu", "compute on the CPU")
	g.String(&f.engine, "engine", "compute with engine `NAME`: auto, onednn (if the build has it) or portable")
	g.String(&f.dtype, "dtype", "compute products in `TYPE`: f32, bf16, or auto, which is f32")
	g.Int(&f.threads, "threads", "CPU threads, `N`; 0 is one per core; results do not depend on it", cli.AtLeast(0))
	g.Int(&f.memory, "max-memory", "bound the memory beside the weights to about `MIB` MiB, by computing a batch in "+
		"parts; 0 is 1024; results do not depend on it", cli.Between(0, 1<<30))
}

// Options are what the flags ask for. Call it after cmd.Parse. A request that this build cannot
// serve is an error at once, before anything is loaded.
func (f *Flags) Options(cmd *cli.Command) (model.Options, error) {
	o := model.Options{
		Device: model.Auto, Engine: f.engine, DType: f.dtype, Threads: f.threads, MaxMemory: int64(f.memory) << 20,
	}
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
