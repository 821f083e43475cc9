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

// process is one life of a coordinator or a worker.
type process struct {
	world *world
	name  string
	life  int
	host  *host
	mount *mount // nil of a worker
	out   string // output directory; "" of a worker
	slow  *atomic.Int64

	cancel context.CancelCauseFunc
	done   chan struct{}
	result *coordinator.Result // valid after done
	err    error

	// guarded by world.mu
	dead     bool     // crashed: what it does from here on reaches nobody
	silent   bool     // with its machine
	stopping bool     // asked to stop
	badDisk  bool     // its disk has been made to fail
	after    ids.Step // the step after which its last generation started
	plans    ids.Step // steps that it has dealt out in that generation
	step     ids.Step // the last one it has made known; -1 before the first
}

// errCrash ends a crashed process's goroutines; none of what they do is seen.
var errCrash = errors.New("crashed (simulated)")

// errStop is a stop as a signal asks for it.
var errStop = errors.New("stopped (simulated)")

func (p *process) String() string { return fmt.Sprintf("%s.%d", p.name, p.life) }

func (p *process) worker() bool { return p.name[0] == 'w' }

// start begins a life of the named process.
func (w *world) start(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.procs[name]
	p := &process{world: w, name: name, life: 1, host: &host{net: w.net, name: name}, done: make(chan struct{}), step: -1, slow: w.slow(name)}
	if old != nil {
		p.life = old.life + 1
		if old.silent {
			old.host.revive()
		}
	}
	w.procs[name] = p
	w.lives = append(w.lives, p)
	w.noteLocked("%v starts", p)
	ctx, cancel := context.WithCancelCause(context.Background())
	p.cancel = cancel
	var run func()
	if p.worker() {
		cfg := p.workerConfig()
		run = func() { p.err = worker.Run(ctx, cfg) }
	} else {
		cfg, err := p.coordinatorConfig(old)
		if err != nil {
			w.faultLocked("%v cannot be started: %v", p, err)
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
	return draw(p.world.plan.Seed, "process", p.name, fmt.Sprint(p.life), of)
}

const (
	workerPort = 7070 // of a coordinator, for workers
	raftPort   = 7071
	ringPort   = 7072 // of a worker
)

func (p *process) dial(ctx context.Context, addr string) (net.Conn, error) {
	return p.host.dial(ctx, addr)
}

func (p *process) mark(point string) { p.world.reached(p, point) }

func (p *process) logger() *slog.Logger { return slog.New(&logHandler{p: p}) }

func (p *process) workerConfig() worker.Config {
	compute := p.rand("compute")
	cfg := worker.Config{
		ID: p.name, Listener: p.host.listen(ringPort), Version: "sim", Logger: p.logger(), Dial: p.dial, Mark: p.mark,
		Open: func(string, model.Options) (worker.Backbone, error) {
			time.Sleep(between(compute, time.Millisecond, 300*time.Millisecond))
			b := &backbone{dim: p.world.dim, digest: p.world.model, pace: func() time.Duration {
				return time.Duration(p.slow.Load()) * between(compute, 10*time.Millisecond, 120*time.Millisecond)
			}}
			if took := p.world.Took; took != nil {
				b.took = func(pairs []model.Pair) time.Duration { return time.Duration(p.slow.Load()) * took(p.name, pairs) }
			}
			return b, nil
		},
	}
	for _, c := range p.world.plan.coordinators() {
		cfg.Coordinators = append(cfg.Coordinators, addressOf(c, workerPort).String())
	}
	return cfg
}

// coordinatorConfig mounts the host's disk and takes over what the life before left in its output directory.
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
		if old.silent {
			data = data[:p.rand("metrics").IntN(len(data)+1)] // it was never synced
		}
		if err := os.WriteFile(filepath.Join(p.out, "metrics.jsonl"), data, 0o644); err != nil {
			return cfg, err
		}
	}
	cfg = coordinator.Config{
		Settings: w.settings(), Nodes: w.plan.Workers, MinNodes: 1, Listener: p.host.listen(workerPort), Out: p.out,
		CommitEvery: w.plan.CommitEvery, CommitWindow: w.plan.CommitWindow, HeartbeatTimeout: 2 * time.Second, StepTimeout: 15 * time.Second,
		LogExamples: true, Version: "sim", Logger: p.logger(), Progress: &watch{p: p}, Mark: p.mark, Dial: p.dial,
		Storage: coordinator.Storage{
			Storage: replica.Storage{Log: p.mount, Snapshots: snapshotStore{p.mount}, Compact: w.plan.Compact},
			Blobs:   files{p.mount},
		},
	}
	if w.plan.Large {
		cfg.Storage.Inline = 1
	}
	if w.plan.Replicas > 1 {
		cfg.Replication = &replica.Replication{ID: p.name, Listener: p.host.listen(raftPort), Dial: p.dial}
		for _, c := range w.plan.coordinators() {
			cfg.Replication.Peers = append(cfg.Replication.Peers, replica.Peer{ID: c, Addr: addressOf(c, raftPort).String()})
		}
	}
	return cfg, nil
}

// crash ends the life at once: its connections break, or fall silent with the machine, and its disk is what was synced.
func (p *process) crash(silent bool, why string) {
	w := p.world
	w.mu.Lock()
	if p.dead {
		w.mu.Unlock()
		return
	}
	p.dead, p.silent = true, silent
	w.noteLocked("%v crashes: %s", p, why)
	w.mu.Unlock()
	p.host.die(silent)
	if p.mount != nil {
		p.mount.freeze()
	}
	p.cancel(errCrash)
}

// watch hears what a live coordinator makes known.
type watch struct {
	coordinator.Silent
	p *process
}

func (w *watch) Start(_ job.Spec, step, _ ids.Step)        { w.p.world.started(w.p, step) }
func (w *watch) Step(r fsm.StepRecord, _ int64, _ float64) { w.p.world.committed(w.p, r) }
func (w *watch) Generation(g ids.Generation, workers int, after ids.Step) {
	w.p.world.generation(w.p, g, workers, after)
}

// logHandler hears what processes log.
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
	h.p.world.logged(h.p, r.Level, r.Message, text)
	return nil
}

func (h *logHandler) WithAttrs(as []slog.Attr) slog.Handler {
	return &logHandler{h.p, append(h.attrs[:len(h.attrs):len(h.attrs)], as...)}
}

func (h *logHandler) WithGroup(string) slog.Handler { return h }
