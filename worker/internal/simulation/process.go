package simulation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/replica"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/worker"
)

// process is one process of a coordinator or a worker. After its end, world.start makes the next
// one of the same host.
type process struct {
	// Set by world.start and constant from then on.
	world    *world
	name     string // of its host
	life     int    // numbers the processes of the host, from 1
	host     *host
	mount    *mount // of its host's disk; nil for a worker
	out      string // output directory; "" for a worker
	slowdown *atomic.Int64
	cancel   context.CancelCauseFunc // ends it; what it returns is err then

	done   chan struct{}       // closed when it has ended
	result *coordinator.Result // what it returned; set before done is closed
	err    error               // the same

	// Guarded by world.mu.
	dead            bool     // it has ended or crashed: what it does from then on has no effect
	powerLost       bool     // it crashed with its machine
	stopping        bool     // it was asked to stop
	diskFailing     bool     // its disk was made to fail
	generationStart ids.Step // the step after which its last generation started
	plansDealt      ids.Step // steps that it has dealt out in that generation
	lastKnown       ids.Step // the last step that it has made known; -1 before the first
}

// errCrash ends a crashed process's goroutines, whose effects nobody sees.
var errCrash = errors.New("crashed (simulated)")

// errStop asks a process to stop, as a signal does.
var errStop = errors.New("stopped (simulated)")

func (p *process) String() string { return fmt.Sprintf("%s.%d", p.name, p.life) }

// isWorker reports whether it is a worker and not a coordinator.
func (p *process) isWorker() bool { return p.name[0] == 'w' }

// start starts the next process of the named host.
func (w *world) start(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.current[name]
	p := &process{
		world:     w,
		name:      name,
		life:      1,
		host:      &host{net: w.net, name: name},
		done:      make(chan struct{}),
		lastKnown: -1,
		slowdown:  w.slowdown(name),
	}
	if old != nil {
		p.life = old.life + 1
		if old.powerLost {
			old.host.revive()
		}
	}
	w.current[name] = p
	w.processes = append(w.processes, p)
	w.recordLocked("%v starts", p)
	ctx, cancel := context.WithCancelCause(context.Background())
	p.cancel = cancel
	var run func()
	if p.isWorker() {
		cfg := p.workerConfig()
		run = func() { p.err = worker.Run(ctx, cfg) }
	} else {
		cfg, err := p.coordinatorConfig(old)
		if err != nil {
			w.violationLocked("%v cannot be started: %v", p, err)
			close(p.done)
			return
		}
		run = func() { p.result, p.err = coordinator.Run(ctx, cfg) }
	}
	go func() {
		run()
		cancel(nil)
		close(p.done)
		w.ended <- p
	}()
}

func (p *process) rand(of string) *rand.Rand {
	return seededRand(p.world.plan.Seed, "process", p.name, fmt.Sprint(p.life), of)
}

// The ports that hosts listen on.
const (
	workerPort = 7070 // of a coordinator, for workers
	raftPort   = 7071 // of a coordinator, for other replicas
	ringPort   = 7072 // of a worker, for ring neighbours
)

func (p *process) dial(ctx context.Context, addr string) (net.Conn, error) {
	return p.host.dial(ctx, addr)
}

func (p *process) mark(point string) { p.world.passCrashPoint(p, point) }

func (p *process) logger() *slog.Logger { return slog.New(&logHandler{p: p}) }

// workerConfig returns a worker's configuration, with the simulated network and backbone.
func (p *process) workerConfig() worker.Config {
	compute := p.rand("compute")
	cfg := worker.Config{
		ID:       p.name,
		Listener: p.host.listen(ringPort),
		Version:  "sim",
		Logger:   p.logger(),
		Dial:     p.dial,
		Mark:     p.mark,
		Open: func(string, model.Options) (worker.Backbone, error) {
			time.Sleep(between(compute, time.Millisecond, 300*time.Millisecond))
			b := &backbone{dim: p.world.dim, digest: p.world.model, pairTime: func() time.Duration {
				return time.Duration(p.slowdown.Load()) * between(compute, 10*time.Millisecond, 120*time.Millisecond)
			}}
			if computeTime := p.world.ComputeTime; computeTime != nil {
				b.callTime = func(pairs []model.Pair) time.Duration {
					return time.Duration(p.slowdown.Load()) * computeTime(p.name, pairs)
				}
			}
			return b, nil
		},
	}
	for _, c := range p.world.plan.coordinators() {
		cfg.Coordinators = append(cfg.Coordinators, addressOf(c, workerPort).String())
	}
	return cfg
}

// coordinatorConfig mounts the host's disk, copies what the process before left in its output
// directory, and returns the coordinator's configuration.
func (p *process) coordinatorConfig(old *process) (cfg coordinator.Config, err error) {
	w := p.world
	p.mount = w.disk(p.name).mount(p.rand("disk"))
	p.out = filepath.Join(w.dir, p.String())
	if err := os.Mkdir(p.out, 0o755); err != nil {
		return cfg, err
	}
	if old != nil {
		data, err := os.ReadFile(filepath.Join(old.out, "metrics.jsonl"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return cfg, err
		}
		if old.powerLost {
			data = data[:p.rand("metrics").IntN(len(data)+1)] // the file is never synced
		}
		if err := os.WriteFile(filepath.Join(p.out, "metrics.jsonl"), data, 0o644); err != nil {
			return cfg, err
		}
	}
	cfg = coordinator.Config{
		Settings:         w.settings(),
		Nodes:            w.plan.Workers,
		MinNodes:         1,
		Listener:         p.host.listen(workerPort),
		Out:              p.out,
		CommitEvery:      w.plan.CommitEvery,
		CommitWindow:     w.plan.CommitWindow,
		HeartbeatTimeout: 2 * time.Second,
		StepTimeout:      15 * time.Second,
		LogExamples:      true,
		Version:          "sim",
		Logger:           p.logger(),
		Progress:         &progressChecker{process: p},
		Mark:             p.mark,
		Dial:             p.dial,
		Storage: coordinator.Storage{
			Storage: replica.Storage{
				Log:       p.mount,
				Snapshots: snapshotStore{p.mount},
				Compact:   w.plan.Compact,
			},
			Blobs: blobDisk{p.mount},
		},
	}
	if w.plan.Large {
		cfg.Storage.Inline = 1
	}
	if w.plan.Replicas > 1 {
		cfg.Replication = &replica.Replication{ID: p.name, Listener: p.host.listen(raftPort), Dial: p.dial}
		for _, c := range w.plan.coordinators() {
			peer := replica.Peer{ID: c, Addr: addressOf(c, raftPort).String()}
			cfg.Replication.Peers = append(cfg.Replication.Peers, peer)
		}
	}
	return cfg, nil
}

// crash ends the process at once, and with it its machine if powerLost: its connections break, or
// fall silent with the machine, and its disk keeps what was synced.
func (p *process) crash(powerLost bool, why string) {
	w := p.world
	w.mu.Lock()
	if p.dead {
		w.mu.Unlock()
		return
	}
	p.dead, p.powerLost = true, powerLost
	w.recordLocked("%v crashes: %s", p, why)
	w.mu.Unlock()
	p.host.takeDown(powerLost)
	if p.mount != nil {
		p.mount.crash()
	}
	p.cancel(errCrash)
}

// progressChecker passes on what a coordinator makes known to the checker.
type progressChecker struct {
	coordinator.Silent
	process *process
}

func (c *progressChecker) Start(_ job.Spec, step, _ ids.Step) {
	c.process.world.checkStart(c.process, step)
}

func (c *progressChecker) Step(r fsm.StepRecord, _ int64, _ float64) {
	c.process.world.checkCommit(c.process, r)
}

func (c *progressChecker) Generation(g ids.Generation, workers int, after ids.Step) {
	c.process.world.checkGeneration(c.process, g, workers, after)
}

// logHandler passes on what a process logs to the checker.
type logHandler struct {
	p     *process
	attrs []slog.Attr
}

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool {
	return h.p.world.Log != nil || l >= slog.LevelError
}

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	for _, a := range h.attrs {
		text += " " + a.String()
	}
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	h.p.world.checkLog(h.p, r.Level, r.Message, text)
	return nil
}

func (h *logHandler) WithAttrs(as []slog.Attr) slog.Handler {
	return &logHandler{h.p, append(h.attrs[:len(h.attrs):len(h.attrs)], as...)}
}

func (h *logHandler) WithGroup(string) slog.Handler { return h }
