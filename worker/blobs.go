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

// A trainer state that is too large for a message goes between coordinator and worker as a blob, piece by piece and straight from or into the numbers
// that are trained: neither side holds a copy of it.

// errTransfer says that a state did not come through, whether the coordinator hears this worker or not.
var errTransfer = errors.New("a trainer state did not come through")

// maxPiece bounds a piece of a blob, in bytes.
const maxPiece = 1 << 20

// fetch takes the state after step from the coordinator, unless this worker holds it.
func (t *trainer) fetch(ctx context.Context, from coordpb.BlobsClient, b ids.Blob, step int64) (fetched bool, err error) {
	if t.digest != b.Digest || t.state.Step != step {
		if err := t.fetchBlob(ctx, from, b); err != nil {
			return false, fmt.Errorf("trainer state after step %d: %w", step, err)
		}
		fetched = true
	}
	if t.state.Step != step {
		return fetched, fmt.Errorf("state after step %d, want step %d", t.state.Step, step)
	}
	t.resumed, t.work = step, work{}
	t.kept.forget(step)
	return fetched, nil
}

func (t *trainer) fetchBlob(ctx context.Context, from coordpb.BlobsClient, b ids.Blob) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream however this ends
	stream, err := from.Fetch(ctx, &coordpb.FetchBlob{Digest: b.Digest[:], WorkerId: t.id})
	if err != nil {
		return unheard(err)
	}
	t.digest = ids.Digest{} // until the state is whole again
	if n := t.subject.size(); len(t.state.Params) != n {
		t.state = *optim.NewState(make([]float32, n))
	}
	h := sha256.New()
	r := io.TeeReader(&pieces{stream: stream}, h)
	if err := t.state.Read(r); err != nil {
		return fmt.Errorf("%w: %w", errTransfer, err)
	}
	more, err := io.Copy(io.Discard, r)
	if err == nil && more > 0 {
		err = fmt.Errorf("%w: %d bytes beyond the %d of the blob", errTransfer, more, b.Size)
	}
	if err != nil {
		return err
	}
	if got := ids.Digest(h.Sum(nil)); got != b.Digest {
		return fmt.Errorf("%w: a blob of %d bytes with digest %s, want %s", errTransfer, b.Size, got.Short(), b.Digest.Short())
	}
	t.digest = b.Digest
	return nil
}

// pieces reads the bytes of a stream of pieces.
type pieces struct {
	stream grpc.ServerStreamingClient[coordpb.BlobPiece]
	rest   []byte
}

// Read implements io.Reader.
func (p *pieces) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		m, err := p.stream.Recv()
		if err == io.EOF {
			return 0, err
		} else if err != nil {
			return 0, unheard(err)
		}
		if len(m.Data) > maxPiece {
			return 0, fmt.Errorf("%w: a piece of %d bytes, want at most %d", errTransfer, len(m.Data), maxPiece)
		}
		p.rest = m.Data
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// store gives the coordinator the state that the trainer holds. It returns when it is durable there.
func (t *trainer) store(ctx context.Context, with coordpb.BlobsClient, generation uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := with.Store(ctx)
	if err != nil {
		return unheard(err)
	}
	head := &coordpb.BlobHead{WorkerId: t.id, Generation: generation, Step: t.state.Step, Digest: t.digest[:], Size: int64(optim.StateSize(len(t.state.Params)))}
	err = stream.Send(&coordpb.StoreBlob{Body: &coordpb.StoreBlob_Head{Head: head}})
	if err == nil {
		err = t.state.Write(sender{stream})
	}
	if err != nil && !errors.Is(err, io.EOF) { // which says that the answer is there already
		return unheard(err)
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		return fmt.Errorf("store the state after step %d: %w", t.state.Step, unheard(err))
	}
	return nil
}

// sender sends what is written as pieces.
type sender struct {
	stream grpc.ClientStreamingClient[coordpb.StoreBlob, coordpb.StoredBlob]
}

// Write implements io.Writer. A message is encoded before Send returns, so p can be used again.
func (s sender) Write(p []byte) (int, error) {
	sent := 0
	for len(p) > 0 {
		n := min(len(p), maxPiece)
		if err := s.stream.Send(&coordpb.StoreBlob{Body: &coordpb.StoreBlob_Data{Data: p[:n]}}); err != nil {
			return sent, err
		}
		sent, p = sent+n, p[n:]
	}
	return sent, nil
}

// unheard tells a failure of the coordinator or of the way to it, after which another session may do, from what it says about this worker.
func unheard(err error) error {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.FailedPrecondition:
		return plain(err)
	case codes.Aborted: // the coordinator has ended the generation, and says so in the session
		return fmt.Errorf("%w: %w", errUnheard, plain(err))
	}
	return fmt.Errorf("%w: %w", errTransfer, plain(err))
}
