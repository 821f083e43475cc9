// Package localworkers keeps worker processes running on this machine: a program starts its own executable again, as a worker.
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
	// shortLife is how soon after its start a worker must not end, or it counts as unable to start.
	shortLife = 10 * time.Second
	// maxShortLives is how often in a row a worker may end soon before the job is given up.
	maxShortLives = 3
	// restartDelay keeps a worker that cannot start from spinning.
	restartDelay = 500 * time.Millisecond
	// stopGrace is how long a worker has to leave before it is killed.
	stopGrace = 5 * time.Second
)

// Command as the first argument makes a program the worker that it starts: it then runs workercmd.
const Command = "worker"

// Workers are the processes that Start started.
type Workers struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	muted  atomic.Bool // once they are told to stop, what they say about it is noise
}

// Start starts n workers for the coordinator at coord and keeps them running: one that dies is started again. giveUp is called when one
// cannot be kept running. The machine's CPUs are shared out among them.
func Start(ctx context.Context, giveUp context.CancelCauseFunc, n int, coord string, security *tlsconf.Flags, log cli.Log, stderr io.Writer) *Workers {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &Workers{cancel: cancel}
	threads := max(1, runtime.NumCPU()/n)
	args := []string{Command, "--coord", coord, "--threads", strconv.Itoa(threads), "--quiet", "--log-format", log.Format}
	args = append(args, security.Args()...)
	for i := range n {
		l.wg.Go(func() {
			// The kernel kills a child when the thread that started it ends; keep that thread.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if err := l.keep(ctx, append(args[:len(args):len(args)], "--id", fmt.Sprintf("local-%d", i)), stderr); err != nil {
				giveUp(fmt.Errorf("local worker %d: %w", i, err))
			}
		})
	}
	return l
}

// keep runs one worker until it ends well or ctx ends.
func (l *Workers) keep(ctx context.Context, args []string, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	for short := 0; ; {
		began := time.Now()
		said := &lastLine{w: stderr, muted: &l.muted}
		cmd := exec.CommandContext(ctx, self, args...)
		cmd.Stderr = said
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
			return fmt.Errorf("ended %d times soon after its start, last with %w: %s", short, err, said.line())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(restartDelay):
		}
	}
}

// Stop tells the workers that still run to leave, and waits for them.
func (l *Workers) Stop() {
	l.muted.Store(true)
	l.cancel()
	l.wg.Wait()
}

// lastLine passes a worker's standard error on and remembers its last line.
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
