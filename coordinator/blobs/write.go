package blobs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/dptune/dpt/coordinator/fsm"
)

// Writer writes one blob. One goroutine uses it, and ends it with Commit or Abort.
type Writer struct {
	store *Store
	blob  fsm.Blob
	path  string // aside
	file  file   // nil once it is over
	hash  hash.Hash
	size  int64
}

// ContentError says that what was written is not the blob that was announced: too much, too little or something else. The store is as it was.
type ContentError struct{ Text string }

func (e *ContentError) Error() string { return e.Text }

// Create begins to write a blob.
func (s *Store) Create(b fsm.Blob) (*Writer, error) {
	s.mu.Lock()
	made, n := s.made, s.next
	s.next++
	s.mu.Unlock()
	if !made {
		if err := s.makeDir(); err != nil {
			return nil, fmt.Errorf("write blob %s: %w", b.Digest.Short(), err)
		}
	}
	path := fmt.Sprintf("%s.%d%s", s.path(b.Digest), n, aside)
	f, err := s.create(path)
	if err != nil {
		return nil, fmt.Errorf("write blob %s: %w", b.Digest.Short(), err)
	}
	return &Writer{store: s, blob: b, path: path, file: f, hash: sha256.New()}, nil
}

// makeDir makes the directory, durably.
func (s *Store) makeDir() error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(s.dir)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = true
	return nil
}

// Write implements io.Writer. More bytes than the blob has are a *ContentError.
func (w *Writer) Write(p []byte) (int, error) {
	if w.size+int64(len(p)) > w.blob.Size {
		return 0, &ContentError{Text: fmt.Sprintf("blob %s: %d bytes and more, want %d", w.blob.Digest.Short(), w.size+int64(len(p)), w.blob.Size)}
	}
	n, err := w.file.Write(p)
	w.hash.Write(p[:n])
	w.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("write blob %s after %d bytes of %d: %w", w.blob.Digest.Short(), w.size, w.blob.Size, err)
	}
	return n, nil
}

// Commit makes the blob durable and gives it its name. On an error, which is a *ContentError where the bytes are not those announced, nothing is
// left of it.
func (w *Writer) Commit() error {
	got := fsm.Digest(w.hash.Sum(nil))
	switch {
	case w.size != w.blob.Size:
		return errors.Join(&ContentError{Text: fmt.Sprintf("blob %s ends after %d bytes, want %d", w.blob.Digest.Short(), w.size, w.blob.Size)}, w.Abort())
	case got != w.blob.Digest:
		return errors.Join(&ContentError{Text: fmt.Sprintf("blob of %d bytes has digest %s, want %s", w.size, got.Short(), w.blob.Digest.Short())}, w.Abort())
	}
	if err := w.commit(); err != nil {
		return fmt.Errorf("write blob %s of %d bytes: %w", w.blob.Digest.Short(), w.size, err)
	}
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	w.store.sizes[w.blob.Digest] = w.size
	return nil
}

func (w *Writer) commit() error {
	if err := w.file.Sync(); err != nil {
		return errors.Join(err, w.Abort())
	}
	f := w.file
	w.file = nil
	if err := f.Close(); err != nil {
		return errors.Join(err, os.Remove(w.path))
	}
	if err := os.Rename(w.path, w.store.path(w.blob.Digest)); err != nil {
		return errors.Join(err, os.Remove(w.path))
	}
	return syncDir(w.store.dir)
}

// Abort leaves nothing of what was written. After Commit it does nothing.
func (w *Writer) Abort() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return errors.Join(err, os.Remove(w.path))
}

// syncDir makes a rename in dir durable, as far as the system can.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) {
		return errors.Join(err, d.Close())
	}
	return d.Close()
}
