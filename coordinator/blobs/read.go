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

// Reader reads one blob. Where the blob ends, Read returns an error that wraps ErrDamaged instead
// of io.EOF unless the bytes have the blob's digest. One goroutine uses it.
type Reader struct {
	file   io.ReadCloser
	path   string // for messages
	digest ids.Digest
	size   int64 // of the blob; -1 accepts any

	hash hash.Hash // over the bytes read so far
	read int64     // bytes read so far
}

// Open opens a blob for reading; the caller closes the reader. The error wraps ErrMissing if the
// blob is not in the store.
func (s *Store) Open(d ids.Digest) (*Reader, error) {
	s.mu.Lock()
	size, ok := s.sizes[d]
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("blob %s: %w", d.Short(), ErrMissing)
	}
	return s.open(d, size)
}

// open opens the file of a blob of size bytes, or of any number if size is -1.
func (s *Store) open(d ids.Digest, size int64) (*Reader, error) {
	path := filepath.Join(s.dir, d.String())
	f, err := s.disk.Open(d.String())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w", path, ErrMissing)
	} else if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	return &Reader{file: f, path: path, digest: d, size: size, hash: sha256.New()}, nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	r.hash.Write(p[:n])
	r.read += int64(n)
	if err == io.EOF {
		got := ids.Digest(r.hash.Sum(nil))
		switch {
		case r.size >= 0 && r.read != r.size:
			return n, fmt.Errorf("%w: blob %s has %d bytes, want %d", ErrDamaged, r.path, r.read, r.size)
		case got != r.digest:
			return n, fmt.Errorf("%w: blob %s of %d bytes has digest %s, want %s",
				ErrDamaged, r.path, r.read, got.Short(), r.digest.Short())
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
