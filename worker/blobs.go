package worker

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model/optim"
)

// A trainer state that is too large for a message goes between coordinator and worker as a blob,
// piece by piece and straight from or into the numbers that are trained: the worker holds no copy
// of it.

// errTransfer is in the chain of errors of a state that was not transferred because the
// coordinator, or the way to it, failed.
var errTransfer = errors.New("a trainer state did not come through")

// fetchState makes the trainer's state that of the blob, which is the state after step. It fetches
// the blob unless the trainer holds that state already, and reports whether it did.
func (t *trainer) fetchState(
	ctx context.Context, from coordpb.BlobsClient, b ids.Blob, step int64,
) (fetched bool, err error) {
	if t.digest != b.Digest || t.state.Step != step {
		if err := t.fetchBlob(ctx, from, b); err != nil {
			return false, fmt.Errorf("trainer state after step %d: %w", step, err)
		}
		fetched = true
	}
	if t.state.Step != step {
		return fetched, fmt.Errorf("state after step %d, want step %d", t.state.Step, step)
	}
	t.resumedAfter, t.work = step, gradientWork{}
	t.contributions.dropThrough(step)
	return fetched, nil
}

// fetchBlob reads a blob into the state. After an error the state is not whole, and digest is zero.
func (t *trainer) fetchBlob(ctx context.Context, from coordpb.BlobsClient, b ids.Blob) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream however this ends
	stream, err := from.Fetch(ctx, &coordpb.FetchBlob{Digest: b.Digest[:], WorkerId: t.workerID})
	if err != nil {
		return transferError(err)
	}

	// Read into the state that is there, which is not whole meanwhile.
	t.digest = ids.Digest{}
	if n := t.objective.parameters(); len(t.state.Params) != n {
		t.state = *optim.NewState(make([]float32, n))
	}
	h := sha256.New()
	r := io.TeeReader(&pieceReader{stream: stream}, h)
	if err := t.state.Read(r); err != nil {
		return fmt.Errorf("%w: %w", errTransfer, err)
	}

	// The blob must end there, and be the one that was asked for.
	more, err := io.Copy(io.Discard, r)
	if err == nil && more > 0 {
		err = fmt.Errorf("%w: %d bytes beyond the %d of the blob", errTransfer, more, b.Size)
	}
	if err != nil {
		return err
	}
	if got := ids.Digest(h.Sum(nil)); got != b.Digest {
		return fmt.Errorf("%w: a blob of %d bytes with digest %s, want %s",
			errTransfer, b.Size, got.Short(), b.Digest.Short())
	}
	t.digest = b.Digest
	return nil
}

// pieceReader reads the bytes of a stream of pieces.
type pieceReader struct {
	stream grpc.ServerStreamingClient[coordpb.BlobPiece]
	rest   []byte // of the last piece: what is not read yet
}

// Read implements io.Reader.
func (p *pieceReader) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		m, err := p.stream.Recv()
		if err == io.EOF {
			return 0, err
		} else if err != nil {
			return 0, transferError(err)
		}
		if len(m.Data) > coordpb.MaxPieceSize {
			return 0, fmt.Errorf("%w: a piece of %d bytes, want at most %d",
				errTransfer, len(m.Data), coordpb.MaxPieceSize)
		}
		p.rest = m.Data
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// storeState sends the trainer's state to the coordinator. It returns when the coordinator has made
// it durable.
func (t *trainer) storeState(ctx context.Context, to coordpb.BlobsClient, generation uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := to.Store(ctx)
	if err != nil {
		return transferError(err)
	}
	err = stream.Send(&coordpb.StoreBlob{Body: &coordpb.StoreBlob_Head{Head: &coordpb.BlobHead{
		WorkerId:   t.workerID,
		Generation: generation,
		Step:       t.state.Step,
		Digest:     t.digest[:],
		Size:       int64(optim.StateSize(len(t.state.Params))),
	}}})
	if err == nil {
		err = t.state.Write(pieceWriter{stream})
	}
	if err != nil && !errors.Is(err, io.EOF) { // io.EOF means that the answer is there already
		return transferError(err)
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		return fmt.Errorf("store the state after step %d: %w", t.state.Step, transferError(err))
	}
	return nil
}

// pieceWriter sends the bytes that are written to it as pieces.
type pieceWriter struct {
	stream grpc.ClientStreamingClient[coordpb.StoreBlob, coordpb.StoredBlob]
}

// Write implements io.Writer. A message is encoded before Send returns, so p can be used again.
func (s pieceWriter) Write(p []byte) (int, error) {
	sent := 0
	for len(p) > 0 {
		n := min(len(p), coordpb.MaxPieceSize)
		if err := s.stream.Send(&coordpb.StoreBlob{Body: &coordpb.StoreBlob_Data{Data: p[:n]}}); err != nil {
			return sent, err
		}
		sent, p = sent+n, p[n:]
	}
	return sent, nil
}

// transferError classifies the error of a transfer. It is an errTransfer if the coordinator or the
// way to it failed, so that another session may succeed, but not if the coordinator objects to what
// this worker sent.
func transferError(err error) error {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.FailedPrecondition:
		return plainError(err)
	case codes.Aborted: // the coordinator has ended the generation, and the session tells why
		return fmt.Errorf("%w: %w", errUnreportable, plainError(err))
	}
	return fmt.Errorf("%w: %w", errTransfer, plainError(err))
}
