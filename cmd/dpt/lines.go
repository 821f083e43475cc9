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

// readSize is the size of one read in bytes.
const readSize = 256 << 10

// lineReader reads JSON lines of any length and counts them for errors.
type lineReader struct {
	name   string // of the input, for errors
	src    *bufio.Reader
	number int    // of the line last returned, from 1
	buf    []byte // holds a line that is longer than src's buffer
}

func newLineReader(ctx context.Context, name string, r io.Reader) *lineReader {
	return &lineReader{name: name, src: bufio.NewReaderSize(&interruptible{ctx: ctx, src: r}, readSize)}
}

// next returns the next line without its line ending, or io.EOF after the last line. The line is
// valid until the next call. A last line without a line ending counts.
func (l *lineReader) next() ([]byte, error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.src.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			l.buf = append(l.buf, part...)
			continue
		}
		line := part
		if len(l.buf) > 0 {
			l.buf = append(l.buf, part...)
			line = l.buf
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

// wouldBlock reports whether next may have to wait for input: a good moment to flush the answers so
// far.
func (l *lineReader) wouldBlock() bool {
	rest, _ := l.src.Peek(l.src.Buffered())
	return bytes.IndexByte(rest, '\n') < 0
}

// errorf makes an error about the line last returned.
func (l *lineReader) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: line %d: %w", l.name, l.number, fmt.Errorf(format, args...))
}

// unmarshal reads one JSON value that is the whole line. want describes the value for errors.
func (l *lineReader) unmarshal(line []byte, into any, want string) error {
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
// that waits in the operating system's read cannot be ended. It lives at most as long as the
// process, and after Read has given up on it, it never touches the caller's memory.
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

// openInput opens a data file; "-" is standard input. done closes it.
func openInput(path string, stdin io.Reader) (name string, r io.Reader, done func() error, err error) {
	if path == "-" {
		return "standard input", stdin, func() error { return nil }, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", nil, nil, err
	}
	return path, f, f.Close, nil
}
