// Package blobs keeps what is too large for a log entry or a message as files named by their digests. It knows nothing of what they hold.
//
// A blob is there whole or not at all: it is written aside, its length and digest are checked, and it is made durable before it gets its name.
// What is read is checked again, to its end.
package blobs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"

	"github.com/dptune/dpt/coordinator/ids"
)

// ErrDamaged says that a file does not hold what its name says.
var ErrDamaged = errors.New("damaged")

// ErrMissing says that a blob is not here.
var ErrMissing = errors.New("no such blob")

const (
	aside   = ".tmp"     // the name of what is being written ends so
	damaged = ".damaged" // and of what was found damaged
)

// Store is a directory of blobs. Its methods may be called from any goroutine.
type Store struct {
	disk Disk
	dir  string // for messages

	mu    sync.Mutex
	sizes map[ids.Digest]int64
	next  int // number of the next file that is written aside
}

// Open opens the store in dir, which need not exist: the first blob makes it.
func Open(dir string, logger *slog.Logger) (*Store, error) {
	return OpenOn(&directory{path: dir}, dir, logger)
}

// OpenOn opens the store on a disk, which messages call dir. It reads every file that is there and sets aside, with a line in the log, those that
// do not hold what their names say; what was being written when an earlier process died goes.
func OpenOn(disk Disk, dir string, logger *slog.Logger) (*Store, error) {
	s := &Store{disk: disk, dir: dir, sizes: map[ids.Digest]int64{}}
	names, err := disk.List()
	if err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, aside) || strings.HasSuffix(name, damaged) {
			if err := disk.Remove(name); err != nil {
				return nil, fmt.Errorf("blobs: %w", err)
			}
			continue
		}
		d, err := ids.ParseDigest(name)
		if err != nil {
			logger.Warn("file among the blobs is none", "file", filepath.Join(dir, name))
			continue
		}
		size, err := s.check(d)
		switch {
		case errors.Is(err, ErrDamaged):
			logger.Error("blob left aside", "reason", err)
			if err := disk.Rename(name, name+damaged); err != nil {
				return nil, fmt.Errorf("blobs: %w", err)
			}
		case err != nil:
			return nil, err
		default:
			s.sizes[d] = size
		}
	}
	return s, nil
}

// check reads a blob's file to its end.
func (s *Store) check(d ids.Digest) (size int64, err error) {
	r, err := s.open(d, -1)
	if err != nil {
		return 0, err
	}
	size, err = io.Copy(io.Discard, r)
	return size, errors.Join(err, r.Close())
}

// Has says whether the blob is here, whole and durable.
func (s *Store) Has(d ids.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.sizes[d]
	return ok
}

// Any says whether there are blobs here.
func (s *Store) Any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sizes) > 0
}

// Discard sets a blob aside that was found damaged, so that it can be had anew.
func (s *Store) Discard(d ids.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sizes, d)
	if err := s.disk.Rename(d.String(), d.String()+damaged); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blobs: %w", err)
	}
	return nil
}

// Keep removes all blobs but those for which wanted is true.
func (s *Store) Keep(wanted func(ids.Digest) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed error
	for d := range s.sizes {
		if wanted(d) {
			continue
		}
		if err := s.disk.Remove(d.String()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, fmt.Errorf("remove an old blob: %w", err))
			continue
		}
		delete(s.sizes, d)
	}
	return failed
}
