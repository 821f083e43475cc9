package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Check refuses a value with an error that says what is wanted: "want at least 1". The caller puts
// the flag and the value before it. Defaults are not checked.
type Check[T any] func(T) error

// AtLeast checks for a value of at least bound.
func AtLeast[T cmp.Ordered](bound T) Check[T] {
	return func(v T) error {
		if v < bound {
			return fmt.Errorf("want at least %v", bound)
		}
		return nil
	}
}

// MoreThan checks for a value above bound.
func MoreThan[T cmp.Ordered](bound T) Check[T] {
	return func(v T) error {
		if v <= bound {
			return fmt.Errorf("want more than %v", bound)
		}
		return nil
	}
}

// Between checks for a value from low to high, both included.
func Between[T cmp.Ordered](low, high T) Check[T] {
	return func(v T) error {
		if v < low || v > high {
			return fmt.Errorf("want %v to %v", low, high)
		}
		return nil
	}
}

// Fraction checks for a number from 0 to 1, both included.
func Fraction(v float64) error { return Between(0.0, 1.0)(v) }

// NotEmpty checks for a text that is not empty.
func NotEmpty(v string) error {
	if strings.TrimSpace(v) == "" {
		return errors.New("want a value that is not empty")
	}
	return nil
}

// OneOf checks for one of the values, matched exactly.
func OneOf(values ...string) Check[string] {
	return func(v string) error {
		if !slices.Contains(values, v) {
			return fmt.Errorf("want %s", orList(values))
		}
		return nil
	}
}

// ExistingDir checks for a directory that exists.
func ExistingDir(path string) error { return existing(path, "a directory", true, false) }

// ExistingFile checks for a file that exists; a device or a pipe counts.
func ExistingFile(path string) error { return existing(path, "a file", false, true) }

// Existing checks for a file or a directory that exists.
func Existing(path string) error { return existing(path, "a file or directory", true, true) }

func existing(path, want string, dirs, files bool) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("nothing there, want %s", want)
	case err != nil:
		// The caller names the path, so only the reason is needed.
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		return fmt.Errorf("%w, want %s", err, want)
	case info.IsDir() && !dirs:
		return fmt.Errorf("found a directory, want %s", want)
	case !info.IsDir() && !files:
		return fmt.Errorf("found a file, want %s", want)
	}
	return nil
}

// NewFile checks for a path where a file can be written: its directory exists, and it is no
// directory itself.
func NewFile(path string) error {
	if path == "" {
		return errors.New("want a file to write")
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return errors.New("found a directory, want a file to write")
	}
	dir := filepath.Dir(path)
	if err := ExistingDir(dir); err != nil {
		return fmt.Errorf("directory %s: %w to write in", quoteIfNeeded(dir), err)
	}
	return nil
}

// HostPort checks for an address as host:port with a port from 0 to 65535. An empty host is every
// interface.
func HostPort(v string) error {
	_, port, err := net.SplitHostPort(v)
	if err != nil {
		return errors.New("want HOST:PORT")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n > 65535 {
		return fmt.Errorf("found port %s, want HOST:PORT with a port from 0 to 65535", quoteIfNeeded(port))
	}
	return nil
}

// orList is "a", "a or b", "a, b or c".
func orList(values []string) string {
	if len(values) < 2 {
		return strings.Join(values, "")
	}
	last := len(values) - 1
	return strings.Join(values[:last], ", ") + " or " + values[last]
}
