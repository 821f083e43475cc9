package blobsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/coordinator/blobs"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// How blobs travel: from a worker to the leader, from replica to replica, and to workers.

// errUnwanted means that the state machine does not refer to the blob any more, so that it need not
// be fetched.
var errUnwanted = errors.New("nothing refers to the blob any more")

// peerError is a failure of the other end, a replica or a worker. It does not end this replica.
type peerError struct{ err error }

func (e *peerError) Error() string { return e.err.Error() }
func (e *peerError) Unwrap() error { return e.err }

// fetch fetches a blob from the replica at addr. An error of this replica's disk ends this replica.
func (s *Sync) fetch(ctx context.Context, addr string, b ids.Blob) (err error) {
	began := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(s.opts.Silence, func() { cancel(fmt.Errorf("nothing came for %v", s.opts.Silence)) })
	defer silence.Stop()
	conn, err := s.opts.Dial(addr)
	if err != nil {
		return fmt.Errorf("replica at %s: %w", addr, err)
	}
	defer conn.Close()
	stream, err := coordpb.NewBlobsClient(conn).Fetch(ctx, &coordpb.FetchBlob{Digest: b.Digest[:]})
	if err != nil {
		return fmt.Errorf("replica at %s: %w", addr, err)
	}
	err = s.receive(b, func() ([]byte, error) {
		m, err := stream.Recv()
		silence.Reset(s.opts.Silence)
		switch {
		case err == io.EOF:
			return nil, err
		case err != nil && context.Cause(ctx) != nil:
			return nil, &peerError{context.Cause(ctx)}
		case err != nil:
			return nil, &peerError{errors.New(status.Convert(err).Message())}
		case !s.isWanted(b.Digest):
			return nil, &peerError{errUnwanted}
		}
		return m.Data, nil
	})
	if err != nil {
		return fmt.Errorf("replica at %s: %w", addr, err)
	}
	s.opts.Logger.Debug("trainer state fetched",
		"digest", b.Digest.Short(), "bytes", b.Size, "from", addr, "took", time.Since(began))
	return nil
}

// receive writes what next returns, piece after piece until io.EOF, and makes it durable. It
// returns next's error, a *blobs.ContentError if the bytes are not the blob's, or the error of the
// disk, which ends the replica: what cannot be kept must not be acknowledged.
func (s *Sync) receive(b ids.Blob, next func() ([]byte, error)) error {
	if s.opts.Blobs.Has(b.Digest) {
		return nil
	}
	w, err := s.opts.Blobs.Create(b)
	if err != nil {
		s.opts.Node.Fail(err)
		return err
	}
	for {
		piece, err := next()
		switch {
		case err == io.EOF:
			if err = w.Commit(); err == nil {
				return nil
			}
		case err == nil && len(piece) > coordpb.MaxPieceSize:
			text := fmt.Sprintf("a piece of %d bytes, want at most %d", len(piece), coordpb.MaxPieceSize)
			err = &blobs.ContentError{Text: text}
		case err == nil:
			if _, err = w.Write(piece); err == nil {
				continue
			}
		}
		err = errors.Join(err, w.Abort())
		var peer *peerError
		var content *blobs.ContentError
		if !errors.As(err, &peer) && !errors.As(err, &content) {
			s.opts.Node.Fail(err)
		}
		return err
	}
}

// Fetch implements coordpb.BlobsServer: it sends a blob to a replica or a worker.
func (s *Sync) Fetch(m *coordpb.FetchBlob, stream grpc.ServerStreamingServer[coordpb.BlobPiece]) error {
	d, err := ids.DigestOf(m.Digest)
	if err != nil || len(m.WorkerId) > coordpb.MaxNameLength {
		return status.Errorf(codes.InvalidArgument, "blob for a worker id of %d bytes, want at most %d: %v",
			len(m.WorkerId), coordpb.MaxNameLength, err)
	}
	var sent error // of the stream
	err = s.read(ids.Blob{Digest: d}, func(r io.Reader) error {
		piece := make([]byte, coordpb.PieceSize)
		for {
			n, err := io.ReadFull(r, piece)
			if n > 0 {
				if sent = stream.Send(&coordpb.BlobPiece{Data: piece[:n]}); sent != nil {
					return sent
				}
				s.noteTransfer(m.WorkerId)
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	})
	switch {
	case sent != nil:
		return sent
	case errors.Is(err, blobs.ErrMissing):
		return status.Errorf(codes.NotFound, "replica %s has no blob %s", s.opts.Node.ID(), d.Short())
	case err != nil:
		s.opts.Logger.Error("blob not sent", "reason", err)
		return status.Errorf(codes.Unavailable, "replica %s: %v", s.opts.Node.ID(), err)
	}
	return nil
}

// Store implements coordpb.BlobsServer: it takes a trainer state that a plan has asked a worker
// for, a head and then pieces.
func (s *Sync) Store(stream grpc.ClientStreamingServer[coordpb.StoreBlob, coordpb.StoredBlob]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	h := first.GetHead()
	if h == nil {
		return status.Errorf(codes.InvalidArgument, "first message is %T, want a head", first.GetBody())
	}
	d, err := ids.DigestOf(h.Digest)
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "blob: %v", err)
	}

	// Only uploads that were asked for get any further.
	u := Upload{Worker: h.WorkerId, Generation: ids.Generation(h.Generation), Step: ids.Step(h.Step)}
	b := ids.Blob{Digest: d, Size: h.Size}
	if err := s.beginUpload(u, b); err != nil {
		return err
	}
	defer s.endUpload(u)
	s.opts.Introduced(stream.Context())

	err = s.receive(b, func() ([]byte, error) {
		m, err := stream.Recv()
		if err == io.EOF {
			return nil, err
		} else if err != nil {
			return nil, &peerError{err}
		}
		s.noteTransfer(u.Worker)
		if m.GetHead() != nil {
			return nil, &blobs.ContentError{Text: "another head, want a piece"}
		}
		return m.GetData(), nil
	})

	// What to answer: the worker's own fault, or this replica's.
	var peer *peerError
	var content *blobs.ContentError
	switch {
	case errors.As(err, &peer):
		return peer.err
	case errors.As(err, &content):
		return status.Errorf(codes.InvalidArgument, "trainer state after step %d: %v", u.Step, content)
	case err != nil:
		return status.Errorf(codes.Unavailable, "replica %s: %v", s.opts.Node.ID(), err)
	}
	s.noteTransfer(u.Worker)
	return stream.SendAndClose(&coordpb.StoredBlob{})
}

// beginUpload begins an upload that a plan has asked for. It admits one stream at a time, and
// another after one that broke off or whose answer was lost.
func (s *Sync) beginUpload(u Upload, b ids.Blob) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.uploads[u]
	switch {
	case a == nil:
		return status.Errorf(codes.Aborted,
			"nobody waits for the state after step %d of generation %d from worker %.*s",
			u.Step, u.Generation, coordpb.MaxNameLength, u.Worker)
	case b.Size != a.size:
		return status.Errorf(codes.InvalidArgument, "trainer state after step %d of %d bytes, want %d",
			u.Step, b.Size, a.size)
	case a.blob.Size > 0 && a.blob != b:
		return status.Errorf(codes.InvalidArgument, "trainer state after step %d has digest %s, want %s as before",
			u.Step, b.Digest.Short(), a.blob.Digest.Short())
	}
	if a.busy {
		return status.Errorf(codes.Aborted, "the state after step %d of generation %d is on its way already",
			u.Step, u.Generation)
	}
	a.blob, a.busy = b, true
	return nil
}

// endUpload ends the stream of an upload.
func (s *Sync) endUpload(u Upload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.uploads[u]; a != nil {
		a.busy = false
	}
}
