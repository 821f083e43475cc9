// Package blobs keeps what is too large for a log entry or a message as files named by their
// digests. It knows nothing of what they hold.
//
// A store has a blob whole or not at all: a Writer writes it under another name, checks its length
// and digest, and makes it durable before it gets its name. A Reader checks it again.
package blobs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/dptune/dpt/coordinator/ids"
)

// ErrDamaged means that the content of a blob's file does not have the digest that the file is
// named by.
var ErrDamaged = errors.New("damaged")

// ErrMissing means that a blob is not in the store.
var ErrMissing = errors.New("no such blob")

// The suffixes of file names that are no blob's.
const (
	partialSuffix = ".tmp"     // of a blob that is being written
	damagedSuffix = ".damaged" // of a blob that was found damaged
)

// Store is a directory of blobs. Its methods may be called from any goroutine.
type Store struct {
	disk Disk
	dir  string // for messages

	mu          sync.Mutex           // guards what follows
	sizes       map[ids.Digest]int64 // of the blobs in the store, in bytes; Commit adds, Discard and Keep remove
	nextPartial int                  // numbers the files of Create, so that two writers of a blob have two
}

// Open opens the store in dir, which need not exist: the first blob creates it.
func Open(dir string, logger *slog.Logger) (*Store, error) {
	return OpenOn(&directory{path: dir}, dir, logger)
}

// OpenOn opens the store on a disk, which messages call dir. It reads every blob, and renames and
// logs those that are damaged. It removes what an earlier process was writing when it died.
func OpenOn(disk Disk, dir string, logger *slog.Logger) (*Store, error) {
	s := &Store{disk: disk, dir: dir, sizes: map[ids.Digest]int64{}}
	names, err := disk.List()
	if err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, partialSuffix) || strings.HasSuffix(name, damagedSuffix) {
			if err := disk.Remove(name); err != nil {
				return nil, fmt.Errorf("blobs: %w", err)
			}
			continue
		}
		d, err := ids.ParseDigest(name)
		if err != nil {
			logger.Warn("file among the blobs is no blob", "file", filepath.Join(dir, name))
			continue
		}
		size, err := s.check(d)
		switch {
		case errors.Is(err, ErrDamaged):
			logger.Error("blob left aside", "reason", err)
			if err := disk.Rename(name, name+damagedSuffix); err != nil {
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

// check reads a blob's file to its end and returns its size; the error wraps ErrDamaged if it is
// damaged.
func (s *Store) check(d ids.Digest) (size int64, err error) {
	r, err := s.open(d, -1)
	if err != nil {
		return 0, err
	}
	size, err = io.Copy(io.Discard, r)
	return size, errors.Join(err, r.Close())
}

// Has reports whether the store has the blob, whole and durable.
func (s *Store) Has(d ids.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.sizes[d]
	return ok
}

// Any reports whether the store has any blob.
func (s *Store) Any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sizes) > 0
}

// Discard renames a blob that was found damaged, so that it can be fetched and stored again.
func (s *Store) Discard(d ids.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sizes, d)
	if err := s.disk.Rename(d.String(), d.String()+damagedSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blobs: %w", err)
	}
	return nil
}

// Keep removes all blobs but those that are wanted. It goes on after an error and returns all of
// them.
func (s *Store) Keep(wanted func(ids.Digest) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	byDigest := func(a, b ids.Digest) int { return bytes.Compare(a[:], b[:]) } // so that the errors have an order
	for _, d := range slices.SortedFunc(maps.Keys(s.sizes), byDigest) {
		if wanted(d) {
			continue
		}
		if err := s.disk.Remove(d.String()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove an old blob: %w", err))
			continue
		}
		delete(s.sizes, d)
	}
	return errors.Join(errs...)
}
