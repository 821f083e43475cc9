package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// readSize is how much one read asks for.
const readSize = 256 << 10

// lines reads JSON lines and knows where it is. A line may be of any length.
type lines struct {
	name   string
	src    *bufio.Reader
	number int // of the line last returned, from 1
	long   []byte
}

func newLines(ctx context.Context, name string, r io.Reader) *lines {
	return &lines{name: name, src: bufio.NewReaderSize(&interruptible{ctx: ctx, src: r}, readSize)}
}

// next returns the next line without its line ending, valid until the call after; io.EOF after the
// last. A last line without a line ending counts.
func (l *lines) next() ([]byte, error) {
	l.long = l.long[:0]
	for {
		part, err := l.src.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			l.long = append(l.long, part...)
			continue
		}
		line := part
		if len(l.long) > 0 {
			l.long = append(l.long, part...)
			line = l.long
		}
		if err == io.EOF && len(line) > 0 {
			err = nil
		}
		if err != nil {
			if err != io.EOF {
				err = fmt.Errorf("%s: after line %d: %w", l.name, l.number, err)
			}
			return nil, err
		}
		l.number++
		return bytes.TrimRight(line, "\r\n"), nil
	}
}

// waiting says that the next line is not here yet: a good moment to flush what was answered.
func (l *lines) waiting() bool {
	rest, _ := l.src.Peek(l.src.Buffered())
	return bytes.IndexByte(rest, '\n') < 0
}

// errorf makes the error of the line last returned.
func (l *lines) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: line %d: %w", l.name, l.number, fmt.Errorf(format, args...))
}

// unmarshal reads one JSON value that is the whole line; want says what it should be.
func (l *lines) unmarshal(line []byte, into any, want string) error {
	if len(bytes.TrimSpace(line)) == 0 {
		return l.errorf("found an empty line, want %s", want)
	}
	if err := json.Unmarshal(line, into); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			if kind.Field != "" {
				return l.errorf("field %s: found %s, want %s", kind.Field, kind.Value, want)
			}
			return l.errorf("found %s, want %s", kind.Value, want)
		}
		return l.errorf("%w, want %s", err, want)
	}
	return nil
}

// interruptible lets a Read that waits for a terminal or a pipe end with its context. The goroutine
// that waits in the operating system's read cannot be ended; it lives at most as long as the process,
// and one that was given up on never touches the caller's memory.
type interruptible struct {
	ctx     context.Context
	src     io.Reader
	buf     []byte
	results chan readResult
}

type readResult struct {
	n   int
	err error
}

func (r *interruptible) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	if r.results == nil {
		r.buf, r.results = make([]byte, readSize), make(chan readResult, 1)
	}
	buf := r.buf[:min(len(p), len(r.buf))]
	go func() {
		n, err := r.src.Read(buf)
		r.results <- readResult{n, err}
	}()
	select {
	case got := <-r.results:
		copy(p, buf[:got.n])
		return got.n, got.err
	case <-r.ctx.Done():
		return 0, context.Cause(r.ctx)
	}
}

// input opens a data file; "-" is standard input. done closes it.
func input(path string, stdin io.Reader) (name string, r io.Reader, done func() error, err error) {
	if path == "-" {
		return "standard input", stdin, func() error { return nil }, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", nil, nil, err
	}
	return path, f, f.Close, nil
}
