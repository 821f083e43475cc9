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
	blob  ids.Blob // that is to be written
	name  string   // of the partial file

	file    File      // nil after Commit or Abort
	hash    hash.Hash // over the bytes written so far
	written int64     // bytes written so far
}

// ContentError means that the bytes written are not those of the blob: too many, too few or others.
// The store is as it was.
type ContentError struct{ Text string }

func (e *ContentError) Error() string { return e.Text }

// Create begins to write a blob. Two writers of the same blob do not disturb each other.
func (s *Store) Create(b ids.Blob) (*Writer, error) {
	s.mu.Lock()
	name := fmt.Sprintf("%s.%d%s", b.Digest, s.nextPartial, partialSuffix)
	s.nextPartial++
	s.mu.Unlock()
	f, err := s.disk.Create(name)
	if err != nil {
		return nil, fmt.Errorf("write blob %s: %w", b.Digest.Short(), err)
	}
	return &Writer{store: s, blob: b, name: name, file: f, hash: sha256.New()}, nil
}

// Write implements io.Writer. The error is a *ContentError if the blob has fewer bytes.
func (w *Writer) Write(p []byte) (int, error) {
	if total := w.written + int64(len(p)); total > w.blob.Size {
		return 0, &ContentError{Text: fmt.Sprintf("blob %s: %d bytes and more, want %d",
			w.blob.Digest.Short(), total, w.blob.Size)}
	}
	n, err := w.file.Write(p)
	w.hash.Write(p[:n])
	w.written += int64(n)
	if err != nil {
		return n, fmt.Errorf("write blob %s after %d bytes of %d: %w",
			w.blob.Digest.Short(), w.written, w.blob.Size, err)
	}
	return n, nil
}

// Commit makes the blob durable and adds it to the store. On an error nothing of it remains; the
// error is a *ContentError if the bytes are not those of the blob.
func (w *Writer) Commit() error {
	if err := w.checkContent(); err != nil {
		return errors.Join(err, w.Abort())
	}
	if err := w.publish(); err != nil {
		return fmt.Errorf("write blob %s of %d bytes: %w", w.blob.Digest.Short(), w.written, err)
	}
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	w.store.sizes[w.blob.Digest] = w.written
	return nil
}

// checkContent returns a *ContentError unless the bytes written are those of the blob.
func (w *Writer) checkContent() error {
	got := ids.Digest(w.hash.Sum(nil))
	switch {
	case w.written != w.blob.Size:
		return &ContentError{Text: fmt.Sprintf("blob %s ends after %d bytes, want %d",
			w.blob.Digest.Short(), w.written, w.blob.Size)}
	case got != w.blob.Digest:
		return &ContentError{Text: fmt.Sprintf("blob of %d bytes has digest %s, want %s",
			w.written, got.Short(), w.blob.Digest.Short())}
	}
	return nil
}

// publish syncs the partial file and gives it the blob's name; on an error it removes the file.
func (w *Writer) publish() error {
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

// Abort removes what was written. After Commit it does nothing.
func (w *Writer) Abort() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return errors.Join(err, w.store.disk.Remove(w.name))
}
