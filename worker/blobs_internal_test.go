package worker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
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

// depot is a coordinator's blobs as a worker sees them: Fetch gives the pieces, then the error; Store keeps what comes and answers.
type depot struct {
	fetch   [][]byte
	failure error // after the pieces; nil is their end
	fetched int

	head   *coordpb.BlobHead
	stored []byte
	answer error
}

func (d *depot) Fetch(ctx context.Context, _ *coordpb.FetchBlob, _ ...grpc.CallOption) (grpc.ServerStreamingClient[coordpb.BlobPiece], error) {
	d.fetched++
	return &given{ctx: ctx, pieces: d.fetch, failure: d.failure}, nil
}

func (d *depot) Store(ctx context.Context, _ ...grpc.CallOption) (grpc.ClientStreamingClient[coordpb.StoreBlob, coordpb.StoredBlob], error) {
	d.head, d.stored = nil, nil
	return &taken{depot: d}, nil
}

type given struct {
	grpc.ClientStream
	ctx     context.Context
	pieces  [][]byte
	failure error
}

func (g *given) Recv() (*coordpb.BlobPiece, error) {
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

type taken struct {
	grpc.ClientStream
	depot *depot
}

func (t *taken) Send(m *coordpb.StoreBlob) error {
	if t.depot.answer != nil {
		return io.EOF // as gRPC: the reason is in the answer
	}
	if h := m.GetHead(); h != nil {
		t.depot.head = h
	}
	t.depot.stored = append(t.depot.stored, m.GetData()...)
	return nil
}

func (t *taken) CloseAndRecv() (*coordpb.StoredBlob, error) {
	return &coordpb.StoredBlob{}, t.depot.answer
}

// many is what a worker trains; nothing is computed.
type many int

func (n many) size() int { return int(n) }
func (many) rows() int   { return 0 }
func (many) lossGrad([]float32, []model.Pair, []float32) (float64, int, []float32, error) {
	return 0, 0, nil, errors.New("nothing is computed here")
}
func (many) evaluate([]float32, []model.Pair, int) ([][]int32, model.Result, error) {
	return nil, model.Result{}, errors.New("nothing is computed here")
}

func trainerOf(n int) *trainer {
	return &trainer{id: "w", subject: many(n), kept: new(partials).of("job")}
}

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

// A worker that holds the committed state does not have it sent again; any other has.
func TestFetchOnlyWhatIsMissing(t *testing.T) {
	const n = 300_000 // several pieces
	data, b := stateAfter(5, n)
	var pieces [][]byte
	for rest := data; len(rest) > 0; {
		k := min(len(rest), 1<<18)
		pieces, rest = append(pieces, rest[:k]), rest[k:]
	}
	d := &depot{fetch: pieces}
	tr := trainerOf(n)
	for i, want := range []bool{true, false, false} {
		if fetched, err := tr.fetch(t.Context(), d, b, 5); err != nil || fetched != want {
			t.Fatalf("time %d: fetched %v (%v), want %v", i, fetched, err, want)
		}
	}
	first := &tr.state.Params[0]
	tr.digest = ids.Digest{} // a step has begun to change it
	if fetched, err := tr.fetch(t.Context(), d, b, 5); err != nil || !fetched || &tr.state.Params[0] != first {
		t.Errorf("after a step that was abandoned: fetched %v (%v), into the same memory: %v", fetched, err, &tr.state.Params[0] == first)
	}
	if d.fetched != 2 || tr.state.Digest() != b.Digest {
		t.Errorf("fetched %d times, want twice; the state is %x", d.fetched, tr.state.Digest())
	}
	if _, err := tr.fetch(t.Context(), d, b, 6); err == nil || !strings.Contains(err.Error(), "state after step 5, want step 6") {
		t.Errorf("the state of another step: %v", err)
	}
}

// What comes that is not the state leaves no state that could be taken for one, and the next session may do better.
func TestFetchRefuses(t *testing.T) {
	data, b := stateAfter(5, 4)
	_, other := stateAfter(6, 4)
	for name, c := range map[string]struct {
		d    depot
		blob ids.Blob
		says string
	}{
		"torn":        {depot{fetch: [][]byte{data[:50]}}, b, "ends within"},
		"more":        {depot{fetch: [][]byte{data, []byte("more")}}, b, "4 bytes beyond"},
		"other":       {depot{fetch: [][]byte{data}}, other, "with digest " + b.Digest.Short() + ", want " + other.Digest.Short()},
		"not finite":  {depot{fetch: [][]byte{data[:28], {0, 0, 0x80, 0x7f}, data[32:]}}, b, "parameter 0 is +Inf"},
		"big pieces":  {depot{fetch: [][]byte{data[:8], make([]byte, maxPiece+1)}}, b, "a piece of 1048577 bytes"},
		"unavailable": {depot{fetch: [][]byte{data[:40]}, failure: status.Error(codes.Unavailable, "gone")}, b, "gone"},
		"not found":   {depot{failure: status.Error(codes.NotFound, "no blob")}, b, "no blob"},
	} {
		tr := trainerOf(4)
		good := &depot{fetch: [][]byte{data}}
		if _, err := tr.fetch(t.Context(), good, b, 5); err != nil {
			t.Fatal(err)
		}
		tr.digest = ids.Digest{}
		if _, err := tr.fetch(t.Context(), &c.d, c.blob, 5); !errors.Is(err, errTransfer) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want one of the transfer with %q", name, err, c.says)
		}
		if tr.digest != (ids.Digest{}) {
			t.Errorf("%s: the state counts as whole", name)
		}
		if fetched, err := tr.fetch(t.Context(), good, b, 5); err != nil || !fetched {
			t.Errorf("%s: afterwards fetched %v (%v), want the state anew", name, fetched, err)
		}
	}
}

func TestStoreSendsTheState(t *testing.T) {
	const n = 300_000
	data, b := stateAfter(5, n)
	tr := trainerOf(n)
	if _, err := tr.fetch(t.Context(), &depot{fetch: [][]byte{data[:1<<20], data[1<<20 : 2<<20], data[2<<20 : 3<<20], data[3<<20:]}}, b, 5); err != nil {
		t.Fatal(err)
	}
	d := new(depot)
	if err := tr.store(t.Context(), d, 3); err != nil || !bytes.Equal(d.stored, data) || d.head.WorkerId != "w" || d.head.Generation != 3 || d.head.Step != 5 || d.head.Size != b.Size {
		t.Errorf("stored %d bytes under %v (%v), want the state", len(d.stored), d.head, err)
	}
	for code, kind := range map[codes.Code]error{codes.Aborted: errUnheard, codes.Unavailable: errTransfer, codes.InvalidArgument: nil} {
		err := tr.store(t.Context(), &depot{answer: status.Error(code, "the reason")}, 3)
		if err == nil || !strings.Contains(err.Error(), "the reason") || kind != nil && !errors.Is(err, kind) || kind == nil && (errors.Is(err, errTransfer) || errors.Is(err, errUnheard)) {
			t.Errorf("refused with %v: %v, want the reason and %v", code, err, kind)
		}
	}
}

// FuzzFetch has anything come in pieces of any size: the state that was asked for, or an error and no state.
func FuzzFetch(f *testing.F) {
	const n = 5
	good, b := stateAfter(5, n)
	f.Add(append([]byte{byte(len(good))}, good...))
	f.Add(append([]byte{30}, good...))
	f.Add(append([]byte{7}, good[:40]...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := new(depot)
		for len(data) > 0 {
			k, width := binary.Uvarint(data)
			if width <= 0 {
				break
			}
			data = data[width:]
			k = min(k, uint64(len(data)))
			d.fetch, data = append(d.fetch, data[:k]), data[k:]
		}
		tr := trainerOf(n)
		_, err := tr.fetch(t.Context(), d, b, 5)
		if (err == nil) != bytes.Equal(bytes.Join(d.fetch, nil), good) {
			t.Errorf("%x: error %v", d.fetch, err)
		}
		if (err == nil) != (tr.digest == b.Digest) {
			t.Errorf("%x: error %v with a state of digest %v", d.fetch, err, tr.digest)
		}
	})
}
