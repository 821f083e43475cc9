package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hashicorp/raft"

	"github.com/dptune/dpt/coordinator/blobs"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
)

// How blobs travel: from a worker to the leader, from replica to replica, and to workers.

const (
	// pieceSize is how many bytes of a blob a message carries.
	pieceSize = 256 << 10
	// maxPiece is how many it may carry.
	maxPiece = 1 << 20
)

// errUnwanted says that a blob is not needed any more.
var errUnwanted = errors.New("nothing names the blob any more")

// peerError is the failure of another replica, or of what it sent.
type peerError struct{ err error }

func (e *peerError) Error() string { return e.err.Error() }
func (e *peerError) Unwrap() error { return e.err }

// fetch has a blob from the replica at addr. An error of this replica's disk ends it.
func (k *states) fetch(ctx context.Context, addr string, b ids.Blob) (err error) {
	began := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := k.cfg.HeartbeatTimeout
	watch := time.AfterFunc(patience, func() { cancel(fmt.Errorf("nothing came for %v", patience)) })
	defer watch.Stop()
	conn, err := k.dial(addr)
	if err != nil {
		return fmt.Errorf("replica at %s: %w", addr, err)
	}
	defer conn.Close()
	stream, err := coordpb.NewBlobsClient(conn).Fetch(ctx, &coordpb.FetchBlob{Digest: b.Digest[:]})
	if err != nil {
		return fmt.Errorf("replica at %s: %w", addr, err)
	}
	err = k.receive(b, func() ([]byte, error) {
		m, err := stream.Recv()
		watch.Reset(patience)
		switch {
		case err == io.EOF:
			return nil, err
		case err != nil && context.Cause(ctx) != nil:
			return nil, &peerError{context.Cause(ctx)}
		case err != nil:
			return nil, &peerError{errors.New(status.Convert(err).Message())}
		case !k.wants(b.Digest):
			return nil, &peerError{errUnwanted}
		}
		return m.Data, nil
	})
	if err != nil {
		return fmt.Errorf("replica at %s: %w", addr, err)
	}
	k.cfg.Logger.Debug("trainer state fetched", "digest", b.Digest.Short(), "bytes", b.Size, "from", addr, "took", time.Since(began))
	return nil
}

func (k *states) dial(addr string) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{grpc.WithTransportCredentials(k.cfg.Replication.credentials())}
	if k.cfg.Dial != nil {
		options = append(options, grpc.WithContextDialer(k.cfg.Dial))
	}
	return grpc.NewClient("passthrough:///"+addr, options...)
}

// receive writes what next gives, piece after piece until io.EOF, and makes it durable. It returns next's error, a *blobs.ContentError where the bytes are
// not the blob's, or that of the disk, which ends the replica: what cannot be kept must not be acknowledged.
func (k *states) receive(b ids.Blob, next func() ([]byte, error)) error {
	if k.store.Has(b.Digest) {
		return nil
	}
	w, err := k.store.Create(b)
	if err != nil {
		k.node.replica.fail(err)
		return err
	}
	for {
		piece, err := next()
		if err == io.EOF {
			err = w.Commit()
		} else if err == nil && len(piece) > maxPiece {
			err = &blobs.ContentError{Text: fmt.Sprintf("a piece of %d bytes, want at most %d", len(piece), maxPiece)}
		} else if err == nil {
			if _, err = w.Write(piece); err == nil {
				continue
			}
		}
		if err == nil {
			return nil
		}
		err = errors.Join(err, w.Abort())
		var peer *peerError
		var content *blobs.ContentError
		if !errors.As(err, &peer) && !errors.As(err, &content) {
			k.node.replica.fail(err)
		}
		return err
	}
}

// Fetch implements coordpb.BlobsServer.
func (f *front) Fetch(m *coordpb.FetchBlob, stream grpc.ServerStreamingServer[coordpb.BlobPiece]) error {
	d, err := ids.DigestOf(m.Digest)
	if err != nil || len(m.WorkerId) > maxNameLength {
		return status.Errorf(codes.InvalidArgument, "blob for a worker id of %d bytes, want at most %d: %v", len(m.WorkerId), maxNameLength, err)
	}
	var sent error
	err = f.states.read(ids.Blob{Digest: d}, func(r io.Reader) error {
		piece := make([]byte, pieceSize)
		for {
			n, err := io.ReadFull(r, piece)
			if n > 0 {
				if sent = stream.Send(&coordpb.BlobPiece{Data: piece[:n]}); sent != nil {
					return sent
				}
				f.states.note(m.WorkerId)
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
		return status.Errorf(codes.NotFound, "replica %s has no blob %s", f.node.id, d.Short())
	case err != nil:
		f.logger.Error("blob not sent", "reason", err)
		return status.Errorf(codes.Unavailable, "replica %s: %v", f.node.id, err)
	}
	return nil
}

// Store implements coordpb.BlobsServer.
func (f *front) Store(stream grpc.ClientStreamingServer[coordpb.StoreBlob, coordpb.StoredBlob]) error {
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
	u, b := upload{h.WorkerId, ids.Generation(h.Generation), ids.Step(h.Step)}, ids.Blob{Digest: d, Size: h.Size}
	if err := f.states.begin(u, b); err != nil {
		return err
	}
	defer f.states.end(u)
	introduced(stream.Context())
	err = f.states.receive(b, func() ([]byte, error) {
		m, err := stream.Recv()
		if err == io.EOF {
			return nil, err
		} else if err != nil {
			return nil, &peerError{err}
		}
		f.states.note(u.worker)
		if m.GetHead() != nil {
			return nil, &blobs.ContentError{Text: "another head, want a piece"}
		}
		return m.GetData(), nil
	})
	var peer *peerError
	var content *blobs.ContentError
	switch {
	case errors.As(err, &peer):
		return peer.err
	case errors.As(err, &content):
		return status.Errorf(codes.InvalidArgument, "trainer state after step %d: %v", u.step, content)
	case err != nil:
		return status.Errorf(codes.Unavailable, "replica %s: %v", f.node.id, err)
	}
	f.states.note(u.worker)
	return stream.SendAndClose(&coordpb.StoredBlob{})
}

// begin takes an upload that a plan has asked for. One comes at a time, and again if it broke off; end says that it has.
func (k *states) begin(u upload, b ids.Blob) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := k.uploads[u]
	switch {
	case a == nil:
		return status.Errorf(codes.Aborted, "nobody waits for the state after step %d of generation %d from worker %.*s", u.step, u.generation, maxNameLength, u.worker)
	case b.Size != a.size:
		return status.Errorf(codes.InvalidArgument, "trainer state after step %d of %d bytes, want %d", u.step, b.Size, a.size)
	case a.blob.Size > 0 && a.blob != b:
		return status.Errorf(codes.InvalidArgument, "trainer state after step %d has digest %s, it had %s", u.step, b.Digest.Short(), a.blob.Digest.Short())
	}
	if a.busy {
		return status.Errorf(codes.Aborted, "the state after step %d of generation %d is on its way already", u.step, u.generation)
	}
	a.blob, a.busy = b, true
	return nil
}

func (k *states) end(u upload) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a := k.uploads[u]; a != nil {
		a.busy = false
	}
}

// Holds implements coordpb.ReplicasServer.
func (f *front) Holds(ctx context.Context, m *coordpb.ReplicaHolds) (*coordpb.ReplicaHoldsAck, error) {
	if f.node.raft.State() != raft.Leader {
		return nil, f.elsewhere()
	}
	servers, err := f.node.servers()
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	known := false
	for _, s := range servers {
		known = known || string(s.ID) == m.GetId()
	}
	if !known {
		return nil, status.Errorf(codes.NotFound, "no replica is called %q, want one of %s", m.GetId(), names(servers))
	}
	h := holder{addr: m.WorkerAddr, offer: upload{generation: ids.Generation(m.Generation), step: ids.Step(m.Step)}}
	if len(h.addr) > maxNameLength || len(m.Digests) > maxHeld {
		return nil, status.Errorf(codes.InvalidArgument, "replica %s holds %d blobs at an address of %d bytes, want at most %d and %d", m.Id, len(m.Digests), len(h.addr), maxHeld, maxNameLength)
	}
	for _, data := range m.Digests {
		d, err := ids.DigestOf(data)
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "replica %s: blob %v", m.Id, err)
		}
		h.digests = append(h.digests, d)
	}
	f.states.mu.Lock()
	f.states.holders[m.Id] = h
	f.states.mu.Unlock()
	f.node.replica.wake() // it may have what is missing here
	f.mu.Lock()
	s := f.server
	f.mu.Unlock()
	if s != nil {
		if err := s.post(ctx, event{holds: true}); err != nil {
			return nil, err
		}
	}
	return &coordpb.ReplicaHoldsAck{}, nil
}

// maxHeld bounds the blobs that a replica says it has: those of the running job and of the jobs that are kept whole.
const maxHeld = 64

// tell tells the leader which of the wanted blobs are here, unless it knows. It says whether there is nothing left to tell.
func (k *states) tell(ctx context.Context, wanted []ids.Blob, offer *fsm.Offer) bool {
	if k.node.alone() || k.node.raft.State() == raft.Leader {
		k.told = ""
		return true
	}
	id, addr := k.node.leader()
	if addr == "" {
		return false
	}
	m := &coordpb.ReplicaHolds{Id: string(k.node.id), WorkerAddr: k.cfg.workerAddr()}
	for _, b := range wanted {
		if !k.store.Has(b.Digest) {
			continue
		}
		m.Digests = append(m.Digests, b.Digest[:])
		if offer != nil && offer.Blob == b {
			m.Generation, m.Step = uint64(offer.Generation), int64(offer.Step)
		}
	}
	now := fmt.Sprintf("%s %d %x %d %d", id, k.node.raft.CurrentTerm(), m.Digests, m.Generation, m.Step)
	if now == k.told && (offer == nil || time.Since(k.said) < holdsInterval) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	conn, err := k.dial(addr)
	if err == nil {
		defer conn.Close()
		_, err = coordpb.NewReplicasClient(conn).Holds(ctx, m)
	}
	if err != nil {
		k.cfg.Logger.Debug("leader not told which trainer states are here", "leader", addr, "reason", err)
		return false
	}
	k.told, k.said = now, time.Now()
	return true
}
