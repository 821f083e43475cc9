package simulation

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/t5"
	"github.com/dptune/dpt/model/tiny"
)

// Options tell how to run a plan.
type Options struct {
	// Reference is what the run must end with; nil for the run that makes it.
	Reference *Reference
	// Scratch is a directory for outputs, better in memory. Empty means the system's for temporary
	// files.
	Scratch string
	// Log receives all log lines of all processes, if it is not nil.
	Log io.Writer

	// Settings changes the plan's job, if it is not nil.
	Settings func(*job.Settings)
	// ComputeTime returns how long a worker computes a call; nil means times drawn from the seed.
	ComputeTime func(worker string, pairs []model.Pair) time.Duration
}

// Report describes what happened in a run.
type Report struct {
	Plan       Plan
	Violations []string // what the checker found, in order
	Trace      []string // faults, starts, ends, generations, commits, each with its time
	Took       time.Duration
	Commits    int            // steps made known as committed, each counted once
	Processes  int            // processes started
	Redone     int            // steps that were done again
	MostRedone int            // steps that were done again after one failure, at most
	Crashed    map[string]int // crashes by crash point
	Reference  *Reference     // of the run itself; nil unless it ended the job
}

// Digest identifies the trace: two runs with equal digests saw the same events at the same times.
func (r *Report) Digest() [sha256.Size]byte {
	return sha256.Sum256([]byte(strings.Join(r.Trace, "\n")))
}

// Run plays a plan. It must be called in a testing/synctest bubble, which gives it its clock.
func Run(plan Plan, options Options) (*Report, error) {
	dir, err := os.MkdirTemp(options.Scratch, "dpt-sim-")
	if err != nil {
		return nil, err
	}
	dir = filepath.Clean(dir) // as errors will name it
	defer os.RemoveAll(dir)
	width, digest, err := embedded()
	if err != nil {
		return nil, err
	}
	w := newWorld(plan, options, dir)
	w.dim, w.model = width, digest
	w.runScript()
	return w.report, nil
}

// embedded returns the width and the digest of the embedded model, which the coordinators read and
// the simulated backbone stands in for. It is not a model in a directory, whose path would differ
// from run to run.
func embedded() (width int, digest ids.Digest, err error) {
	m, err := tiny.Open()
	if err != nil {
		return 0, digest, err
	}
	defer m.Close()
	config, err := t5.ParseConfig(m.Config())
	if err != nil {
		return 0, digest, err
	}
	digest, err = m.Digest()
	return config.DModel, digest, err
}
