package blobsync

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/coordinator/blobs"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/internal/replicatest"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/replica"
)

// testReplica is a replica that is alone, leads a job whose states are blobs, and serves them.
type testReplica struct {
	node   *replica.Node
	sync   *Sync
	dir    string              // of the blobs
	client coordpb.BlobsClient // of its services
	addr   string              // of its services
}

// dial connects to services without TLS.
func dial(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func newTestReplica(t *testing.T) *testReplica {
	t.Helper()
	n := replicatest.OpenLeader(t, t.TempDir())
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &testReplica{
		node: n,
		dir:  filepath.Join(t.TempDir(), "state", "blobs"),
		addr: listener.Addr().String(),
	}
	store, err := blobs.Open(r.dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r.sync = New(Options{
		Node:       n,
		Blobs:      store,
		Dir:        r.dir,
		WorkerAddr: r.addr,
		LoadedJob:  func() *job.Job { return nil },
		Dial:       dial,
		Introduced: func(context.Context) {},
		Silence:    time.Minute,
		Logger:     slog.New(slog.DiscardHandler),
	})
	srv := grpc.NewServer()
	coordpb.RegisterBlobsServer(srv, r.sync)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	conn, err := dial(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); srv.Stop(); <-served })
	r.client = coordpb.NewBlobsClient(conn)
	replicatest.Commit(t, n, replicatest.Start(10)...)
	return r
}

// store sends a head, unless it is nil, and pieces, and returns the answer.
func (r *testReplica) store(head *coordpb.BlobHead, pieces ...[]byte) error {
	stream, err := r.client.Store(context.Background())
	if err != nil {
		return err
	}
	if head != nil {
		err = stream.Send(&coordpb.StoreBlob{Body: &coordpb.StoreBlob_Head{Head: head}})
	}
	for _, p := range pieces {
		if err == nil {
			err = stream.Send(&coordpb.StoreBlob{Body: &coordpb.StoreBlob_Data{Data: p}})
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_, err = stream.CloseAndRecv()
	return err
}

// fetch returns the content of a blob.
func (r *testReplica) fetch(digest ids.Digest) ([]byte, error) {
	stream, err := r.client.Fetch(context.Background(), &coordpb.FetchBlob{Digest: digest[:], WorkerId: "w"})
	if err != nil {
		return nil, err
	}
	var data []byte
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return data, nil
		} else if err != nil {
			return data, err
		}
		data = append(data, m.Data...)
	}
}

// goesOn fails the test if the replica has ended.
func (r *testReplica) goesOn(t *testing.T) {
	t.Helper()
	select {
	case err := <-r.node.Broken():
		t.Fatalf("the replica ends: %v", err)
	default:
	}
}

// holdsNothing fails the test if there are files among the blobs.
func (r *testReplica) holdsNothing(t *testing.T) {
	t.Helper()
	if entries, err := os.ReadDir(r.dir); err != nil || len(entries) > 0 {
		t.Errorf("%v are left (%v), want nothing", entries, err)
	}
}

// endsWith fails the test unless the replica has ended with an error that contains the texts.
func (r *testReplica) endsWith(t *testing.T, wants ...string) {
	t.Helper()
	select {
	case err := <-r.node.Broken():
		for _, want := range wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the replica ends with %v, want an error with %q", err, want)
			}
		}
	default:
		t.Errorf("the replica goes on, want it to end with an error with %q", wants)
	}
}

// put stores a state as a worker whom a plan has asked for it.
func (r *testReplica) put(t *testing.T, step int64, data []byte) ids.Blob {
	t.Helper()
	b := blobOf(data)
	r.sync.ExpectUpload(Upload{"w", 1, ids.Step(step)}, b.Size)
	if err := r.store(headOf(step, b), data); err != nil {
		t.Fatal(err)
	}
	return b
}

// commit commits a step whose state is a blob.
func (r *testReplica) commit(t *testing.T, step int64, b ids.Blob) {
	t.Helper()
	batch := ids.Sum([]byte{byte(step)})
	replicatest.Commit(t, r.node, &fsmpb.Entry{Body: &fsmpb.Entry_StepCommitted{StepCommitted: &fsmpb.StepCommitted{
		Generation:  1,
		Step:        step,
		BatchDigest: batch[:],
		StateDigest: b.Digest[:],
		StateSize:   b.Size,
		LossSum:     1,
		Tokens:      1,
		Workers:     1,
	}}})
}

// waitUntilBusy waits until an upload is under way, or is not any more.
func (r *testReplica) waitUntilBusy(u Upload, want bool) {
	for {
		r.sync.mu.Lock()
		busy := r.sync.uploads[u].busy
		r.sync.mu.Unlock()
		if busy == want {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// refused fails the test unless err has the code and contains the text.
func refused(t *testing.T, what string, err error, code codes.Code, want string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: error %v, want %v with %q", what, err, code, want)
	}
}

// stateOf is a state of size bytes for a step.
func stateOf(step int64, size int) []byte { return bytes.Repeat([]byte{byte(step)}, size) }

func blobOf(data []byte) ids.Blob { return ids.Blob{Digest: ids.Sum(data), Size: int64(len(data))} }

// headOf announces the state after a step.
func headOf(step int64, b ids.Blob) *coordpb.BlobHead {
	return &coordpb.BlobHead{WorkerId: "w", Generation: 1, Step: step, Digest: b.Digest[:], Size: b.Size}
}

// TestStoreRefuses: what a worker stores is taken if it was asked for and is what its head
// announces. Anything else is refused, with what was found, and leaves nothing behind.
func TestStoreRefuses(t *testing.T) {
	r := newTestReplica(t)
	data := stateOf(1, 3*coordpb.PieceSize/2)
	b := blobOf(data)
	r.sync.ExpectUpload(Upload{"w", 1, 1}, b.Size)
	halves := [][]byte{data[:coordpb.PieceSize], data[coordpb.PieceSize:]}
	for name, c := range map[string]struct {
		change func(h *coordpb.BlobHead)
		code   codes.Code
		want   string
	}{
		"another worker's": {
			func(h *coordpb.BlobHead) { h.WorkerId = "x" },
			codes.Aborted, "nobody waits for the state after step 1 of generation 1 from worker x",
		},
		"another step's": {
			func(h *coordpb.BlobHead) { h.Step = 2 },
			codes.Aborted, "nobody waits for the state after step 2",
		},
		"another generation's": {
			func(h *coordpb.BlobHead) { h.Generation = 2 },
			codes.Aborted, "of generation 2",
		},
		"of another size": {
			func(h *coordpb.BlobHead) { h.Size = 5 },
			codes.InvalidArgument, "of 5 bytes, want 393216",
		},
		"without a digest": {
			func(h *coordpb.BlobHead) { h.Digest = nil },
			codes.InvalidArgument, "digest of 0 bytes, want 32",
		},
	} {
		h := headOf(1, b)
		c.change(h)
		refused(t, name, r.store(h, halves...), c.code, c.want)
	}
	refused(t, "without a head", r.store(nil, halves...), codes.InvalidArgument, "want a head")

	for name, c := range map[string]struct {
		pieces [][]byte
		want   string
	}{
		"torn":       {halves[:1], "ends after 262144 bytes, want 393216"},
		"too much":   {append(halves[:2:2], []byte("!")), "393217 bytes and more, want 393216"},
		"wrong":      {[][]byte{halves[0], bytes.Repeat([]byte("x"), len(halves[1]))}, "has digest"},
		"big pieces": {[][]byte{make([]byte, coordpb.MaxPieceSize+1)}, "of 1048577 bytes, want at most 1048576"},
	} {
		refused(t, name, r.store(headOf(1, b), c.pieces...), codes.InvalidArgument, c.want)
		if r.sync.Has(b) {
			t.Fatalf("%s: the blob is here", name)
		}
	}
	r.holdsNothing(t)
	if !r.sync.LastTransfer("x").IsZero() {
		t.Error("a piece of a refused upload counts as a transfer")
	}
	if err := r.store(headOf(1, b), halves...); err != nil {
		t.Errorf("the right state after all that: error %v", err)
	}
	r.goesOn(t)
}

// TestStore: an upload may be repeated after it broke off or after its answer was lost, but there
// is one at a time, and one state after a step.
func TestStore(t *testing.T) {
	r := newTestReplica(t)
	data := stateOf(1, 3*coordpb.PieceSize/2)
	b := blobOf(data)
	u := Upload{"w", 1, 1}
	r.sync.ExpectUpload(u, b.Size)
	halves := [][]byte{data[:coordpb.PieceSize], data[coordpb.PieceSize:]}

	// One stream sends its head and breaks off later; another comes meanwhile.
	ctx, breakOff := context.WithCancel(context.Background())
	stream, err := r.client.Store(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&coordpb.StoreBlob{Body: &coordpb.StoreBlob_Head{Head: headOf(1, b)}}); err != nil {
		t.Fatal(err)
	}
	r.waitUntilBusy(u, true)
	refused(t, "two at once", r.store(headOf(1, b), halves...), codes.Aborted, "on its way already")
	breakOff()
	r.waitUntilBusy(u, false)
	r.holdsNothing(t)

	if err := r.store(headOf(1, b), halves...); err != nil {
		t.Fatal(err)
	}
	if err := r.store(headOf(1, b), halves[0]); err != nil {
		t.Errorf("a blob that is here already: error %v", err)
	}
	other := stateOf(9, len(data))
	err = r.store(headOf(1, blobOf(other)), other)
	refused(t, "another state after the same step", err, codes.InvalidArgument, "want "+b.Digest.Short()+" as before")
	if got, err := r.fetch(b.Digest); err != nil || !bytes.Equal(got, data) {
		t.Errorf("fetched %d bytes (%v), want the %d that were stored", len(got), err, len(data))
	}
	if r.sync.LastTransfer("w").IsZero() || !r.sync.LastTransfer("x").IsZero() {
		t.Error("w sent pieces and has no transfer, or x sent none and has one")
	}
	r.goesOn(t)
}

// TestSweep: a stored state stays while it may be committed, and goes when it cannot be any more.
func TestSweep(t *testing.T) {
	r := newTestReplica(t)
	put := func(step int64) ids.Blob {
		t.Helper()
		return r.put(t, step, stateOf(step, 100))
	}
	left := func(when string, want ...ids.Blob) {
		t.Helper()
		if err := r.sync.sweep(); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(r.dir)
		if err != nil || len(entries) != len(want) {
			t.Fatalf("%s %d blobs are left (%v), want %d", when, len(entries), err, len(want))
		}
		for _, b := range want {
			if !r.sync.Has(b) {
				t.Errorf("%s the state with digest %s is gone", when, b.Digest.Short())
			}
		}
	}
	one := put(1)
	left("stored,", one)
	r.commit(t, 1, one)
	left("committed,", one)
	two, three := put(2), put(3)
	left("with two more stored,", one, two, three)
	r.commit(t, 2, two)
	left("with the next committed,", two, three)
	next := &fsmpb.GenerationStarted{Generation: 2, ResumeStep: 2, Members: []*fsmpb.Member{{Id: "w", Addr: "w:1"}}}
	replicatest.Commit(t, r.node, &fsmpb.Entry{Body: &fsmpb.Entry_GenerationStarted{GenerationStarted: next}})
	left("in the next generation,", two)
}

// TestFetchDiscardsADamagedBlob: a damaged blob is not sent as if it were whole, and is gone
// afterwards. If it is lost for good, a replica that is alone ends.
func TestFetchDiscardsADamagedBlob(t *testing.T) {
	r := newTestReplica(t)
	data := stateOf(1, 1000)
	b := r.put(t, 1, data)
	r.commit(t, 1, b)
	if _, err := r.fetch(ids.Sum([]byte("other"))); status.Code(err) != codes.NotFound {
		t.Errorf("a blob that is not here: error %v, want %v", err, codes.NotFound)
	}
	data[500] ^= 1
	if err := os.WriteFile(filepath.Join(r.dir, b.Digest.String()), data, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := r.fetch(b.Digest)
	refused(t, "a damaged blob", err, codes.Unavailable, "want "+b.Digest.Short())
	if r.sync.Has(b) {
		t.Error("the damaged blob is still here")
	}

	// While this replica of a queue has not loaded the job, the blob may be its initial state.
	r.sync.opts.Serve = true
	r.sync.round(t.Context())
	r.sync.opts.LoadedJob = func() *job.Job { return &job.Job{ID: "another"} }
	r.sync.round(t.Context())
	r.goesOn(t)
	r.sync.opts.LoadedJob = func() *job.Job { return &job.Job{ID: "job"} }
	r.sync.round(t.Context())
	r.endsWith(t, b.Digest.String(), r.dir)
}

// TestStoreOnAFullDisk: a disk that takes no more ends the replica before it has acknowledged
// anything. The other replicas have copies of their own.
func TestStoreOnAFullDisk(t *testing.T) {
	r := newTestReplica(t)
	data := stateOf(1, 100)
	b := blobOf(data)
	r.sync.ExpectUpload(Upload{"w", 1, 1}, b.Size)
	if err := os.MkdirAll(filepath.Dir(r.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.dir, nil, 0o644); err != nil { // where the directory should be
		t.Fatal(err)
	}
	refused(t, "a full disk", r.store(headOf(1, b), data), codes.Unavailable, r.dir)
	r.endsWith(t, r.dir)
}

// TestFetchFromAReplica: a replica fetches a blob from another, and refuses one that differs from
// what it asked for.
func TestFetchFromAReplica(t *testing.T) {
	from, to := newTestReplica(t), newTestReplica(t)
	b := from.put(t, 1, stateOf(1, 3*coordpb.PieceSize/2))
	if err := to.sync.fetch(t.Context(), from.addr, b); !errors.Is(err, errUnwanted) {
		t.Errorf("a blob that nothing refers to: error %v, want %v", err, errUnwanted)
	}
	replicatest.Commit(t, to.node, &fsmpb.Entry{Body: &fsmpb.Entry_StateOffered{StateOffered: &fsmpb.StateOffered{
		Generation: 1,
		Step:       1,
		Digest:     b.Digest[:],
		Size:       b.Size,
	}}})
	short := b
	short.Size -= 7
	err := to.sync.fetch(t.Context(), from.addr, short)
	for _, want := range []string{"want 393209", from.addr} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a blob that is longer than it should be: error %v, want one with %q", err, want)
		}
	}
	if err := to.sync.fetch(t.Context(), from.addr, b); err != nil || !to.sync.Has(b) {
		t.Errorf("error %v, want the blob", err)
	}
	to.goesOn(t)
}
