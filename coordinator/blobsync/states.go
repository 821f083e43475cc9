package blobsync

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/dptune/dpt/coordinator/blobs"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model/optim"
)

// The blobs that are here.

// write makes a blob whose content fill writes. An error ends the replica.
func (s *Sync) write(b ids.Blob, fill func(io.Writer) error) error {
	w, err := s.opts.Blobs.Create(b)
	if err == nil {
		if err = fill(w); err == nil {
			err = w.Commit()
		} else {
			err = errors.Join(err, w.Abort())
		}
	}
	if err != nil {
		s.opts.Node.Fail(err)
	}
	return err
}

// Has reports whether a blob is here. The zero Blob, which stands for a state in the log, always
// is.
func (s *Sync) Has(b ids.Blob) bool { return b.Size == 0 || s.opts.Blobs.Has(b.Digest) }

// read passes a blob to f, which reads it to its end. It discards a damaged blob, so that it is
// fetched again.
func (s *Sync) read(b ids.Blob, f func(io.Reader) error) error {
	r, err := s.opts.Blobs.Open(b.Digest)
	if err != nil {
		return err
	}
	err = errors.Join(f(r), r.Close())
	if errors.Is(err, blobs.ErrDamaged) {
		err = errors.Join(err, s.opts.Blobs.Discard(b.Digest))
		s.opts.Node.Wake()
	}
	return err
}

// State returns the encoding of a trainer state: inline, or the content of the blob if b names one.
func (s *Sync) State(inline []byte, b ids.Blob) (state []byte, err error) {
	if b.Size == 0 {
		return inline, nil
	}
	var buf bytes.Buffer
	err = s.read(b, func(r io.Reader) error { _, err := buf.ReadFrom(r); return err })
	return buf.Bytes(), err
}

// Params returns the n parameters of a trainer state, whose encoding is inline, or the content of
// the blob if b names one.
func (s *Sync) Params(inline []byte, b ids.Blob, n int) (params []float32, err error) {
	if b.Size == 0 {
		return optim.ReadParams(bytes.NewReader(inline), n)
	}
	err = s.read(b, func(r io.Reader) error {
		if params, err = optim.ReadParams(r, n); err != nil {
			return err
		}
		more, err := io.Copy(io.Discard, r) // to its end, where the digest is checked
		if err == nil && more > 0 {
			err = fmt.Errorf("trainer state is %d bytes longer than that of %d parameters", more, n)
		}
		return err
	})
	return params, err
}
