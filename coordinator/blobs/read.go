package blobs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/dptune/dpt/coordinator/ids"
)

// Reader reads one blob. At its end it says ErrDamaged instead of io.EOF where the bytes were not those that the digest is of.
type Reader struct {
	file   io.ReadCloser
	path   string // for messages
	digest ids.Digest
	hash   hash.Hash
	size   int64 // so far
	want   int64 // -1: any
}

// Open opens a blob for reading; the caller closes the reader.
func (s *Store) Open(d ids.Digest) (*Reader, error) {
	s.mu.Lock()
	size, ok := s.sizes[d]
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("blob %s: %w", d.Short(), ErrMissing)
	}
	return s.open(d, size)
}

func (s *Store) open(d ids.Digest, size int64) (*Reader, error) {
	path := filepath.Join(s.dir, d.String())
	f, err := s.disk.Open(d.String())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w", path, ErrMissing)
	} else if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	return &Reader{file: f, path: path, digest: d, hash: sha256.New(), want: size}, nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	r.hash.Write(p[:n])
	r.size += int64(n)
	if err == io.EOF {
		got := ids.Digest(r.hash.Sum(nil))
		switch {
		case r.want >= 0 && r.size != r.want:
			return n, fmt.Errorf("%w: blob %s has %d bytes, want %d", ErrDamaged, r.path, r.size, r.want)
		case got != r.digest:
			return n, fmt.Errorf("%w: blob %s of %d bytes has digest %s, want %s", ErrDamaged, r.path, r.size, got.Short(), r.digest.Short())
		}
		return n, io.EOF
	}
	if err != nil {
		return n, fmt.Errorf("read blob: %w", err)
	}
	return n, nil
}

// Close implements io.Closer.
func (r *Reader) Close() error { return r.file.Close() }
