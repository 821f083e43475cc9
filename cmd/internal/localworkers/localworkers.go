// Package localworkers keeps worker processes running on this machine: a program starts its own
// executable again as a worker.
package localworkers

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/tlsconf"
)

const (
	// shortLife is a run time after which a worker did start: one that ends sooner counts as unable
	// to start.
	shortLife = 10 * time.Second
	// maxShortLives is how many times in a row a worker may end that soon.
	maxShortLives = 3
	// restartDelay is the pause before a restart.
	restartDelay = 500 * time.Millisecond
	// stopGrace is how long a worker has to leave before it is killed.
	stopGrace = 5 * time.Second
)

// Command is the first argument that makes a program run workercmd, as one of its own workers.
const Command = "worker"

// Workers are the processes that Start started.
type Workers struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	muted  atomic.Bool // set by Stop: what workers log about being stopped is noise
}

// Start starts n workers for the coordinator at coord and keeps them running: it restarts one that
// dies, and calls abort when one cannot be kept running. The workers share the machine's CPUs. They
// run until Stop, even after ctx ends.
func Start(
	ctx context.Context, abort context.CancelCauseFunc, n int, coord string,
	security *tlsconf.Flags, log cli.Log, stderr io.Writer,
) *Workers {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &Workers{cancel: cancel}
	threads := max(1, runtime.NumCPU()/n)
	args := []string{
		Command, "--coord", coord, "--threads", strconv.Itoa(threads), "--quiet", "--log-format", log.Format,
	}
	args = append(args, security.Args()...)
	for i := range n {
		args := append(args[:len(args):len(args)], "--id", fmt.Sprintf("local-%d", i))
		l.wg.Go(func() {
			// The kernel kills a child when the thread that started it ends, so keep that thread.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if err := l.supervise(ctx, args, stderr); err != nil {
				abort(fmt.Errorf("local worker %d: %w", i, err))
			}
		})
	}
	return l
}

// supervise runs one worker, again if it fails, until it ends well or ctx ends.
func (l *Workers) supervise(ctx context.Context, args []string, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	for short := 0; ; {
		began := time.Now()
		output := &lastLine{w: stderr, muted: &l.muted}
		cmd := exec.CommandContext(ctx, self, args...)
		cmd.Stderr = output
		cmd.SysProcAttr = childAttr()
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = stopGrace
		err := cmd.Run()
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if short++; time.Since(began) > shortLife {
			short = 1
		}
		if short >= maxShortLives {
			return fmt.Errorf("ended %d times soon after its start, last with %w: %s", short, err, output.line())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(restartDelay):
		}
	}
}

// Stop tells the workers to leave the job, and waits for them.
func (l *Workers) Stop() {
	l.muted.Store(true)
	l.cancel()
	l.wg.Wait()
}

// lastLine passes on a worker's standard error and remembers its last line.
type lastLine struct {
	w     io.Writer
	muted *atomic.Bool
	last  []byte
}

func (l *lastLine) Write(p []byte) (int, error) {
	if trimmed := bytes.TrimRight(p, "\n"); len(trimmed) > 0 {
		l.last = append(l.last[:0], trimmed[bytes.LastIndexByte(trimmed, '\n')+1:]...)
	}
	if l.muted.Load() {
		return len(p), nil
	}
	return l.w.Write(p)
}

func (l *lastLine) line() string { return string(l.last) }
