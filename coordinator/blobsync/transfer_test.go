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

// depot is a replica that is alone, leads a job whose states are blobs, and serves them.
type depot struct {
	node   *replica.Node
	sync   *Sync
	dir    string // of the blobs
	client coordpb.BlobsClient
	addr   string
}

func dial(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func newDepot(t *testing.T) *depot {
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
	d := &depot{node: n, dir: filepath.Join(t.TempDir(), "state", "blobs"), addr: listener.Addr().String()}
	store, err := blobs.Open(d.dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d.sync = New(Options{
		Node:       n,
		Blobs:      store,
		Dir:        d.dir,
		WorkerAddr: d.addr,
		LoadedJob:  func() *job.Job { return nil },
		Dial:       dial,
		Introduced: func(context.Context) {},
		Silence:    time.Minute,
		Logger:     slog.New(slog.DiscardHandler),
	})
	srv := grpc.NewServer()
	coordpb.RegisterBlobsServer(srv, d.sync)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	conn, err := dial(d.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); srv.Stop(); <-served })
	d.client = coordpb.NewBlobsClient(conn)
	replicatest.Commit(t, n, replicatest.Start(10)...)
	return d
}

// store sends a head and pieces, and returns the answer.
func (d *depot) store(head *coordpb.BlobHead, pieces ...[]byte) error {
	stream, err := d.client.Store(context.Background())
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

func (d *depot) fetch(digest ids.Digest) ([]byte, error) {
	stream, err := d.client.Fetch(context.Background(), &coordpb.FetchBlob{Digest: digest[:], WorkerId: "w"})
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

func stateOf(step int64, size int) (data []byte, b ids.Blob) {
	data = bytes.Repeat([]byte{byte(step)}, size)
	return data, ids.Blob{Digest: ids.Sum(data), Size: int64(size)}
}

func headOf(step int64, b ids.Blob) *coordpb.BlobHead {
	return &coordpb.BlobHead{WorkerId: "w", Generation: 1, Step: step, Digest: b.Digest[:], Size: b.Size}
}

// What a worker stores is taken if it was asked for and is what it says; anything else leaves what
// is there alone, and says what was found.
func TestStore(t *testing.T) {
	d := newDepot(t)
	data, b := stateOf(1, 3*coordpb.PieceSize/2)
	d.sync.Expect(Upload{"w", 1, 1}, b.Size)
	half := [][]byte{data[:coordpb.PieceSize], data[coordpb.PieceSize:]}
	change := func(f func(h *coordpb.BlobHead)) *coordpb.BlobHead {
		h := headOf(1, b)
		f(h)
		return h
	}
	for name, c := range map[string]struct {
		head   *coordpb.BlobHead
		pieces [][]byte
		code   codes.Code
		says   string
	}{
		"another worker's":     {change(func(h *coordpb.BlobHead) { h.WorkerId = "x" }), half, codes.Aborted, "nobody waits for the state after step 1 of generation 1 from worker x"},
		"another step's":       {change(func(h *coordpb.BlobHead) { h.Step = 2 }), half, codes.Aborted, "nobody waits for the state after step 2"},
		"another generation's": {change(func(h *coordpb.BlobHead) { h.Generation = 2 }), half, codes.Aborted, "of generation 2"},
		"of another size":      {change(func(h *coordpb.BlobHead) { h.Size = 5 }), half, codes.InvalidArgument, "of 5 bytes, want 393216"},
		"without a digest":     {change(func(h *coordpb.BlobHead) { h.Digest = nil }), half, codes.InvalidArgument, "digest of 0 bytes, want 32"},
		"nothing":              {nil, half, codes.InvalidArgument, "want a head"},
	} {
		if err := d.store(c.head, c.pieces...); status.Code(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want %v with %q", name, err, c.code, c.says)
		}
	}
	for name, c := range map[string]struct {
		pieces [][]byte
		says   string
	}{
		"torn":       {half[:1], "ends after 262144 bytes, want 393216"},
		"too much":   {append(half[:2:2], []byte("!")), "393217 bytes and more, want 393216"},
		"wrong":      {[][]byte{bytes.ToUpper(half[0]), bytes.Repeat([]byte("x"), len(half[1]))}, "has digest"},
		"big pieces": {[][]byte{make([]byte, coordpb.MaxPieceSize+1)}, "a piece of 1048577 bytes, want at most 1048576"},
	} {
		if err := d.store(headOf(1, b), c.pieces...); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.says)
		}
		if d.sync.Has(b) {
			t.Fatalf("%s: the blob is there", name)
		}
	}
	broken, cancel := context.WithCancel(context.Background())
	stream, err := d.client.Store(broken)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&coordpb.StoreBlob{Body: &coordpb.StoreBlob_Head{Head: headOf(1, b)}}); err != nil {
		t.Fatal(err)
	}
	for { // until it has begun
		d.sync.mu.Lock()
		busy := d.sync.uploads[Upload{"w", 1, 1}].busy
		d.sync.mu.Unlock()
		if busy {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := d.store(headOf(1, b), half...); status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "on its way already") {
		t.Errorf("two at once: %v", err)
	}
	cancel()
	for { // until it is known to have broken off
		d.sync.mu.Lock()
		busy := d.sync.uploads[Upload{"w", 1, 1}].busy
		d.sync.mu.Unlock()
		if !busy {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if entries, err := os.ReadDir(d.dir); err != nil || len(entries) > 0 {
		t.Errorf("%v are left (%v), want nothing", entries, err)
	}
	if err := d.store(headOf(1, b), half...); err != nil {
		t.Fatal(err)
	}
	if err := d.store(headOf(1, b), half[0]); err != nil { // again, after the answer was lost
		t.Errorf("what is there already: %v", err)
	}
	other, is := stateOf(9, len(data))
	if err := d.store(headOf(1, is), other); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "it had "+b.Digest.Short()) {
		t.Errorf("another state after the same step: %v", err)
	}
	if got, err := d.fetch(b.Digest); err != nil || !bytes.Equal(got, data) {
		t.Errorf("fetched %d bytes (%v), want the %d that were stored", len(got), err, len(data))
	}
	if d.sync.LastMoved("w").IsZero() || !d.sync.LastMoved("x").IsZero() {
		t.Error("worker w moved pieces and is not known to, or x did not and is")
	}
	select {
	case err := <-d.node.Broken():
		t.Errorf("the replica gives up: %v", err)
	default:
	}
}

// A stored state stays while it may be committed, and goes when it cannot be any more.
func TestSweep(t *testing.T) {
	d := newDepot(t)
	put := func(step int64) ids.Blob {
		t.Helper()
		data, b := stateOf(step, 100)
		d.sync.Expect(Upload{"w", 1, ids.Step(step)}, b.Size)
		if err := d.store(headOf(step, b), data); err != nil {
			t.Fatal(err)
		}
		return b
	}
	commit := func(step int64, b ids.Blob) {
		t.Helper()
		batch := ids.Sum([]byte{byte(step)})
		replicatest.Commit(t, d.node, &fsmpb.Entry{Body: &fsmpb.Entry_StepCommitted{StepCommitted: &fsmpb.StepCommitted{
			Generation: 1, Step: step, BatchDigest: batch[:], StateDigest: b.Digest[:], StateSize: b.Size, LossSum: 1, Tokens: 1, Workers: 1}}})
	}
	left := func(when string, want ...ids.Blob) {
		t.Helper()
		if err := d.sync.sweep(); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(d.dir)
		if err != nil || len(entries) != len(want) {
			t.Fatalf("%s %d blobs are left (%v), want %d", when, len(entries), err, len(want))
		}
		for _, b := range want {
			if !d.sync.Has(b) {
				t.Errorf("%s the state of byte %s is gone", when, b.Digest.Short())
			}
		}
	}
	one := put(1)
	left("stored,", one)
	commit(1, one)
	left("committed,", one)
	two, three := put(2), put(3)
	left("with two more stored,", one, two, three)
	commit(2, two)
	left("with the next committed,", two, three)
	replicatest.Commit(t, d.node, &fsmpb.Entry{Body: &fsmpb.Entry_GenerationStarted{GenerationStarted: &fsmpb.GenerationStarted{Generation: 2, ResumeStep: 2, Members: []*fsmpb.Member{{Id: "w", Addr: "w:1"}}}}})
	left("in the next generation,", two)
}

// A blob that is damaged is not sent as if it were whole, and is gone afterwards; one that is lost
// for good ends a replica that is alone.
func TestFetchOfDamage(t *testing.T) {
	d := newDepot(t)
	data, b := stateOf(1, 1000)
	d.sync.Expect(Upload{"w", 1, 1}, b.Size)
	if err := d.store(headOf(1, b), data); err != nil {
		t.Fatal(err)
	}
	batch := ids.Sum(nil)
	replicatest.Commit(t, d.node, &fsmpb.Entry{Body: &fsmpb.Entry_StepCommitted{StepCommitted: &fsmpb.StepCommitted{
		Generation: 1, Step: 1, BatchDigest: batch[:], StateDigest: b.Digest[:], StateSize: b.Size, LossSum: 1, Tokens: 1, Workers: 1}}})
	if _, err := d.fetch(ids.Sum([]byte("other"))); status.Code(err) != codes.NotFound {
		t.Errorf("a blob that is not there: %v", err)
	}
	data[500] ^= 1
	if err := os.WriteFile(filepath.Join(d.dir, b.Digest.String()), data, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := d.fetch(b.Digest); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "want "+b.Digest.Short()) {
		t.Errorf("a damaged blob: %v, want an error that names both digests", err)
	}
	if d.sync.Has(b) {
		t.Error("the damaged blob is still offered")
	}
	d.sync.Serve = true // it may be a state that the queue's job starts from
	d.sync.round(t.Context())
	d.sync.LoadedJob = func() *job.Job { return &job.Job{ID: "another"} }
	d.sync.round(t.Context())
	select {
	case err := <-d.node.Broken():
		t.Fatalf("the replica gives up before it has loaded the job: %v", err)
	default:
	}
	d.sync.LoadedJob = func() *job.Job { return &job.Job{ID: "job"} }
	d.sync.round(t.Context())
	select {
	case err := <-d.node.Broken():
		if !strings.Contains(err.Error(), b.Digest.String()) || !strings.Contains(err.Error(), d.dir) {
			t.Errorf("the replica gives up with %v, want an error that names the state and the directory", err)
		}
	default:
		t.Error("a replica that is alone goes on without the committed state")
	}
}

// A disk that takes no more ends the replica before it has acknowledged anything; its peers have
// their own copies.
func TestStoreOnAFullDisk(t *testing.T) {
	d := newDepot(t)
	data, b := stateOf(1, 100)
	d.sync.Expect(Upload{"w", 1, 1}, b.Size)
	if err := os.MkdirAll(filepath.Dir(d.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.dir, nil, 0o644); err != nil { // where the directory should be
		t.Fatal(err)
	}
	if err := d.store(headOf(1, b), data); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), d.dir) {
		t.Errorf("error %v, want one that names %s", err, d.dir)
	}
	select {
	case err := <-d.node.Broken():
		if !strings.Contains(err.Error(), d.dir) {
			t.Errorf("the replica gives up with %v, want an error that names %s", err, d.dir)
		}
	default:
		t.Error("the replica goes on without a disk")
	}
}

// One replica has a blob from another, and is not taken in by one that sends something else.
func TestFetchFromAReplica(t *testing.T) {
	from, to := newDepot(t), newDepot(t)
	data, b := stateOf(1, 3*coordpb.PieceSize/2)
	from.sync.Expect(Upload{"w", 1, 1}, b.Size)
	if err := from.store(headOf(1, b), data); err != nil {
		t.Fatal(err)
	}
	if err := to.sync.fetch(t.Context(), from.addr, b); !errors.Is(err, errUnwanted) {
		t.Errorf("a blob that nothing names: %v", err)
	}
	replicatest.Commit(t, to.node, &fsmpb.Entry{Body: &fsmpb.Entry_StateOffered{StateOffered: &fsmpb.StateOffered{Generation: 1, Step: 1, Digest: b.Digest[:], Size: b.Size}}})
	short := b
	short.Size -= 7
	if err := to.sync.fetch(t.Context(), from.addr, short); err == nil || !strings.Contains(err.Error(), "want 393209") || !strings.Contains(err.Error(), from.addr) {
		t.Errorf("a blob that is longer than it should be: %v", err)
	}
	if err := to.sync.fetch(t.Context(), from.addr, b); err != nil || !to.sync.Has(b) {
		t.Errorf("error %v, want the blob", err)
	}
	select {
	case err := <-to.node.Broken():
		t.Errorf("the replica gives up because of its peer: %v", err)
	default:
	}
}
