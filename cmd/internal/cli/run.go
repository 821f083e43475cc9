package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Exit codes of every program.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitInterrupted = 130 // at the second interrupt, without cleaning up
)

// IO is the streams of a program; in tests they are buffers.
type IO struct {
	In       io.Reader
	Out, Err io.Writer
}

// RunFunc is a program. args are the arguments without its name. It returns the errors of
// [Command.Parse] unchanged, and it stops soon after ctx ends.
type RunFunc func(ctx context.Context, args []string, std IO) error

// UsageError is a mistake of the user on the command line. Message is one sentence that names the
// flag, what was found and what is wanted.
type UsageError struct {
	Command string // the command whose help explains the usage
	Message string
}

func (e *UsageError) Error() string {
	return fmt.Sprintf("%s (see %s --help)", e.Message, e.Command)
}

// infoRequest stops a run that was asked for help or version. Its text goes to standard output.
type infoRequest struct{ text func(width int) string }

func (e *infoRequest) Error() string { return "help or version asked for" }

// InfoRequest is an error that makes [Run] print the text and report success.
func InfoRequest(text func(width int) string) error { return &infoRequest{text: text} }

// Interrupted is the cause of a context that a signal cancelled; context.Cause(ctx) returns it.
type Interrupted struct{ Signal os.Signal }

func (e *Interrupted) Error() string { return fmt.Sprintf("stopped by signal: %v", e.Signal) }

// Main runs the program on the process's arguments and streams and exits with its code. The first
// SIGINT or SIGTERM cancels the context with cause *[Interrupted]; the second ends the process.
func Main(name string, run RunFunc) {
	ctx, stop := WithSignals(context.Background(), name, os.Stderr)
	code := Run(ctx, name, run, os.Args[1:], IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}

// WithSignals returns a context that the first SIGINT or SIGTERM cancels, with a line on w. The
// second signal exits the process with [ExitInterrupted]. stop releases the signals and ends the
// watcher.
func WithSignals(parent context.Context, name string, w io.Writer) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for caught := 0; ; caught++ {
			select {
			case s := <-signals:
				if caught > 0 {
					os.Exit(ExitInterrupted)
				}
				fmt.Fprintf(w, "%s: %v: stopping; once more ends at once\n", name, s)
				cancel(&Interrupted{Signal: s})
			case <-quit:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(quit)
		<-done
		cancel(nil)
	}
}

// Run is Main without the process: it runs the program and returns its exit code. Where that is not
// 0, it writes one line to std.Err.
func Run(ctx context.Context, name string, run RunFunc, args []string, std IO) int {
	err := run(ctx, args, std)
	var info *infoRequest
	var usage *UsageError
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &info):
		if _, err := io.WriteString(std.Out, info.text(Width(std.Out))); err != nil {
			fmt.Fprintf(std.Err, "%s: %s\n", name, oneLine(err.Error()))
			return ExitFailed
		}
		return ExitDone
	case errors.As(err, &usage):
		fmt.Fprintf(std.Err, "%s: %s\n", usage.Command, oneLine(err.Error()))
		return ExitUsage
	}
	// The cause of a cancellation says more than the bare error.
	if cause := context.Cause(ctx); cause != nil && err == context.Canceled {
		err = cause
	}
	fmt.Fprintf(std.Err, "%s: %s\n", name, oneLine(err.Error()))
	return ExitFailed
}

// oneLine joins the lines of a message. errors.Join makes messages with several lines.
func oneLine(message string) string {
	lines := strings.FieldsFunc(message, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "; ")
}
