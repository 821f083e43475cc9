package blobs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"

	"github.com/dptune/dpt/coordinator/ids"
)

// Writer writes one blob. One goroutine uses it, and ends it with Commit or Abort.
type Writer struct {
	store *Store
	blob  ids.Blob
	name  string // aside
	file  File   // nil once it is over
	hash  hash.Hash
	size  int64
}

// ContentError says that what was written is not the blob that was announced: too much, too little or something else. The store is as it was.
type ContentError struct{ Text string }

func (e *ContentError) Error() string { return e.Text }

// Create begins to write a blob.
func (s *Store) Create(b ids.Blob) (*Writer, error) {
	s.mu.Lock()
	name := fmt.Sprintf("%s.%d%s", b.Digest, s.next, aside)
	s.next++
	s.mu.Unlock()
	f, err := s.disk.Create(name)
	if err != nil {
		return nil, fmt.Errorf("write blob %s: %w", b.Digest.Short(), err)
	}
	return &Writer{store: s, blob: b, name: name, file: f, hash: sha256.New()}, nil
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
	got := ids.Digest(w.hash.Sum(nil))
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
		return errors.Join(err, w.store.disk.Remove(w.name))
	}
	if err := w.store.disk.Rename(w.name, w.blob.Digest.String()); err != nil {
		return errors.Join(err, w.store.disk.Remove(w.name))
	}
	return nil
}

// Abort leaves nothing of what was written. After Commit it does nothing.
func (w *Writer) Abort() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return errors.Join(err, w.store.disk.Remove(w.name))
}
