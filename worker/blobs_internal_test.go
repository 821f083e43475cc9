package worker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/optim"
)

// fakeBlobs is a coordinator's blob service as a worker sees it. Fetch streams the pieces, then
// failure; Store keeps what comes and answers.
type fakeBlobs struct {
	fetch   [][]byte // the pieces
	failure error    // after the pieces; nil is their end
	fetched int      // counts calls of Fetch

	head   *coordpb.BlobHead // of the last Store
	stored []byte            // by the last Store
	answer error             // to Store
}

func (d *fakeBlobs) Fetch(ctx context.Context, _ *coordpb.FetchBlob, _ ...grpc.CallOption) (
	grpc.ServerStreamingClient[coordpb.BlobPiece], error,
) {
	d.fetched++
	return &fakeFetch{ctx: ctx, pieces: d.fetch, failure: d.failure}, nil
}

func (d *fakeBlobs) Store(ctx context.Context, _ ...grpc.CallOption) (
	grpc.ClientStreamingClient[coordpb.StoreBlob, coordpb.StoredBlob], error,
) {
	d.head, d.stored = nil, nil
	return &fakeStore{blobs: d}, nil
}

// fakeFetch is the stream of a Fetch.
type fakeFetch struct {
	grpc.ClientStream
	ctx     context.Context
	pieces  [][]byte
	failure error
}

func (g *fakeFetch) Recv() (*coordpb.BlobPiece, error) {
	if err := g.ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	if len(g.pieces) == 0 && g.failure != nil {
		return nil, g.failure
	} else if len(g.pieces) == 0 {
		return nil, io.EOF
	}
	p := g.pieces[0]
	g.pieces = g.pieces[1:]
	return &coordpb.BlobPiece{Data: p}, nil
}

// fakeStore is the stream of a Store.
type fakeStore struct {
	grpc.ClientStream
	blobs *fakeBlobs
}

func (t *fakeStore) Send(m *coordpb.StoreBlob) error {
	if t.blobs.answer != nil {
		return io.EOF // as gRPC does: the reason is in the answer
	}
	if h := m.GetHead(); h != nil {
		t.blobs.head = h
	}
	t.blobs.stored = append(t.blobs.stored, m.GetData()...)
	return nil
}

func (t *fakeStore) CloseAndRecv() (*coordpb.StoredBlob, error) {
	return &coordpb.StoredBlob{}, t.blobs.answer
}

// fakeObjective is an objective of some number of parameters that computes nothing.
type fakeObjective int

func (n fakeObjective) parameters() int  { return int(n) }
func (fakeObjective) promptRows() int    { return 0 }
func (fakeObjective) sharesPasses() bool { return true }
func (fakeObjective) lossGrads([]float32, [][]model.Pair, []float32) ([]*contribution, error) {
	return nil, errors.New("nothing is computed here")
}
func (fakeObjective) evaluate([]float32, []model.Pair, int) ([][]int32, model.Result, error) {
	return nil, model.Result{}, errors.New("nothing is computed here")
}

// newTestTrainer returns a trainer of n parameters that holds no state yet.
func newTestTrainer(n int) *trainer {
	return &trainer{workerID: "w", objective: fakeObjective(n), contributions: new(contributionCache).forJob("job")}
}

// stateAfter returns a trainer state of n parameters, encoded and as the name of its blob.
func stateAfter(step int64, n int) (data []byte, b ids.Blob) {
	s := optim.NewState(make([]float32, n))
	s.Step = step
	for i := range n {
		s.Params[i] = float32(i) + float32(step)/8
	}
	data, err := s.MarshalBinary()
	if err != nil {
		panic(err)
	}
	return data, ids.Blob{Digest: ids.Sum(data), Size: int64(len(data))}
}

// A worker fetches the committed state only if it does not hold it.
func TestFetchOnlyWhatIsMissing(t *testing.T) {
	const n = 300_000 // several pieces
	data, b := stateAfter(5, n)
	var pieces [][]byte
	for rest := data; len(rest) > 0; {
		k := min(len(rest), 1<<18)
		pieces, rest = append(pieces, rest[:k]), rest[k:]
	}
	d := &fakeBlobs{fetch: pieces}
	tr := newTestTrainer(n)
	for i, want := range []bool{true, false, false} {
		if fetched, err := tr.fetchState(t.Context(), d, b, 5); err != nil || fetched != want {
			t.Fatalf("time %d: fetched %v (%v), want %v", i, fetched, err, want)
		}
	}
	first := &tr.state.Params[0]
	tr.digest = ids.Digest{} // a step has begun to change it
	fetched, err := tr.fetchState(t.Context(), d, b, 5)
	if same := &tr.state.Params[0] == first; err != nil || !fetched || !same {
		t.Errorf("after a step that was abandoned: fetched %v (%v), into the same memory: %v", fetched, err, same)
	}
	if d.fetched != 2 || tr.state.Digest() != b.Digest {
		t.Errorf("fetched %d times, want twice; the state is %x", d.fetched, tr.state.Digest())
	}
	_, err = tr.fetchState(t.Context(), d, b, 6)
	if err == nil || !strings.Contains(err.Error(), "state after step 5, want step 6") {
		t.Errorf("the state of another step: %v", err)
	}
}

// After a transfer of anything but the state, the trainer does not take what it holds for a state,
// and can fetch it again.
func TestFetchRefuses(t *testing.T) {
	data, b := stateAfter(5, 4)
	_, other := stateAfter(6, 4)
	gone, missing := status.Error(codes.Unavailable, "gone"), status.Error(codes.NotFound, "no blob")
	for name, c := range map[string]struct {
		pieces  [][]byte
		failure error
		blob    ids.Blob
		want    string
	}{
		"torn": {[][]byte{data[:50]}, nil, b, "ends within"},
		"more": {[][]byte{data, []byte("more")}, nil, b, "4 bytes beyond"},
		"other": {[][]byte{data}, nil, other,
			"with digest " + b.Digest.Short() + ", want " + other.Digest.Short()},
		"not finite":  {[][]byte{data[:28], {0, 0, 0x80, 0x7f}, data[32:]}, nil, b, "parameter 0 is +Inf"},
		"big pieces":  {[][]byte{data[:8], make([]byte, coordpb.MaxPieceSize+1)}, nil, b, "a piece of 1048577 bytes"},
		"unavailable": {[][]byte{data[:40]}, gone, b, "gone"},
		"not found":   {nil, missing, b, "no blob"},
	} {
		tr := newTestTrainer(4)
		good := &fakeBlobs{fetch: [][]byte{data}}
		if _, err := tr.fetchState(t.Context(), good, b, 5); err != nil {
			t.Fatal(err)
		}
		tr.digest = ids.Digest{}
		_, err := tr.fetchState(t.Context(), &fakeBlobs{fetch: c.pieces, failure: c.failure}, c.blob, 5)
		if !errors.Is(err, errTransfer) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one of the transfer with %q", name, err, c.want)
		}
		if tr.digest != (ids.Digest{}) {
			t.Errorf("%s: the state counts as whole", name)
		}
		if fetched, err := tr.fetchState(t.Context(), good, b, 5); err != nil || !fetched {
			t.Errorf("%s: afterwards fetched %v (%v), want the state again", name, fetched, err)
		}
	}
}

func TestStoreSendsTheState(t *testing.T) {
	const n = 300_000
	data, b := stateAfter(5, n)
	tr := newTestTrainer(n)
	pieces := slices.Collect(slices.Chunk(data, 1<<20))
	if _, err := tr.fetchState(t.Context(), &fakeBlobs{fetch: pieces}, b, 5); err != nil {
		t.Fatal(err)
	}
	d := new(fakeBlobs)
	if err := tr.storeState(t.Context(), d, 3); err != nil || !bytes.Equal(d.stored, data) ||
		d.head.WorkerId != "w" || d.head.Generation != 3 || d.head.Step != 5 || d.head.Size != b.Size {
		t.Errorf("stored %d bytes under %v (%v), want the state", len(d.stored), d.head, err)
	}
	for code, kind := range map[codes.Code]error{
		codes.Aborted:         errUnreportable,
		codes.Unavailable:     errTransfer,
		codes.InvalidArgument: nil, // neither
	} {
		err := tr.storeState(t.Context(), &fakeBlobs{answer: status.Error(code, "the reason")}, 3)
		if err == nil || !strings.Contains(err.Error(), "the reason") {
			t.Errorf("refused with %v: %v, want the reason", code, err)
		}
		for _, k := range []error{errUnreportable, errTransfer} {
			if errors.Is(err, k) != (k == kind) {
				t.Errorf("refused with %v: %v, want kind %v", code, err, kind)
			}
		}
	}
}

// FuzzFetch transfers any bytes in pieces of any size: the result is the state that was asked for,
// or an error and no state.
func FuzzFetch(f *testing.F) {
	const n = 5
	good, b := stateAfter(5, n)
	f.Add(append([]byte{byte(len(good))}, good...))
	f.Add(append([]byte{30}, good...))
	f.Add(append([]byte{7}, good[:40]...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := new(fakeBlobs)
		for len(data) > 0 {
			k, width := binary.Uvarint(data)
			if width <= 0 {
				break
			}
			data = data[width:]
			k = min(k, uint64(len(data)))
			d.fetch, data = append(d.fetch, data[:k]), data[k:]
		}
		tr := newTestTrainer(n)
		_, err := tr.fetchState(t.Context(), d, b, 5)
		if (err == nil) != bytes.Equal(bytes.Join(d.fetch, nil), good) {
			t.Errorf("%x: error %v", d.fetch, err)
		}
		if (err == nil) != (tr.digest == b.Digest) {
			t.Errorf("%x: error %v with a state of digest %v", d.fetch, err, tr.digest)
		}
	})
}
