package enginetest

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/dptune/dpt/model/engine"
)

// move checks ops that copy and sum rows.
func (s *suite) move(t *testing.T) {
	eng, many, ref := s.engine(t, 1), s.engine(t, 3), reference(t)
	const v, d, c, n = 50, 70, 5, 90
	run := func(e engine.Engine) [][]float64 {
		r := rand.New(rand.NewPCG(5, 6))
		table := must(e.NewTable(v, d, random(r, v*d)))
		ws := e.NewWorkspace()
		dirty(e, ws)
		prompt := upload(e, ws, engine.Wide, random(r, c*d), c, d)
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = int32(r.IntN(v+c) - c)
		}
		index := ws.Index(ids)
		if index.Len() != n {
			t.Errorf("Index.Len is %d, want %d", index.Len(), n)
		}
		x := ws.Tensor(engine.Wide, n, d)
		e.EmbedForward(x, table, prompt, index)
		sum := upload(e, ws, engine.Wide, random(r, c*d), c, d)
		e.EmbedBackward(sum, x, index)
		xn := ws.Tensor(engine.Narrow, n, d)
		e.EmbedForward(xn, table, prompt, index)
		e.EmbedBackward(sum, xn, index)
		twice := make([]int32, n)
		for i := range twice {
			twice[i] = int32(i / 2)
		}
		pairs := ws.Tensor(engine.Narrow, n, d)
		e.GatherRows(pairs, xn, ws.Index(twice))

		perm := r.Perm(n)
		rows := make([]int32, 40)
		for i := range rows {
			rows[i] = int32(perm[i])
		}
		some := ws.Tensor(engine.Wide, len(rows), d)
		e.GatherRows(some, x, ws.Index(rows))
		e.Scale(some, -0.5)
		e.ScatterRows(x, some, ws.Index(rows))
		view := ws.View(x, 3, 80, 7, 9)
		zero := ws.Tensor(engine.Wide, 3, 4)
		e.Zero(zero)
		empty := ws.Tensor(engine.Wide, 0, d)
		e.Upload(empty, nil)
		return [][]float64{
			download(t, e, x), download(t, e, sum), download(t, e, some), download(t, e, view), download(t, e, zero),
			download(t, e, empty), download(t, e, pairs),
		}
	}
	want, got, got3 := run(ref), run(eng), run(many)
	for i := range want {
		s.compare(t, "result", got[i], want[i])
		sameBits(t, "result with 3 threads", got3[i], got[i])
	}
}

func (s *suite) argmax(t *testing.T) {
	e := s.engine(t, 2)
	ws := e.NewWorkspace()
	nan := float32(math.NaN())
	rows := [][]float32{{1, 3, 3, 2}, {-5, -7, -6, -5}, {0, nan, 1, 2}, {nan, 0, 0, 0}, {0, 0, 0, 9}}
	want := []int32{1, 0, -1, -1, 3}
	var data []float32
	for _, r := range rows {
		data = append(data, r...)
	}
	got := make([]int32, len(rows))
	if err := e.Argmax(got, upload(e, ws, engine.Wide, data, len(rows), 4)); err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("argmax of %v is %d, want %d", rows[i], got[i], want[i])
		}
	}
}

// workspace checks that tensors keep their contents while others come and go, and that views share
// memory.
func (s *suite) workspace(t *testing.T) {
	e := s.engine(t, 1)
	ws := e.NewWorkspace()
	r := rand.New(rand.NewPCG(9, 9))
	for range 3 {
		a := random(r, 12)
		kept := upload(e, ws, engine.Wide, a, 3, 4)
		mark := ws.Mark()
		big := upload(e, ws, engine.Wide, random(r, 300*1000), 300, 1000)
		inner := ws.Mark()
		upload(e, ws, engine.Narrow, random(r, 100*1000), 100, 1000)
		ws.Release(inner)
		other := ws.Tensor(engine.Wide, 500, 1000)
		e.Zero(other)
		if got := download(t, e, big); got[0] == 0 || got[len(got)-1] == 0 {
			t.Error("a tensor lost its contents to one made later")
		}
		ws.Release(mark)
		more := upload(e, ws, engine.Wide, random(r, 400*1000), 400, 1000)
		e.Zero(ws.View(more, 1, 2, 1, 998))
		got := download(t, e, more)
		if got[1000] == 0 || got[1001] != 0 || got[2998] != 0 || got[2999] == 0 || got[3000] == 0 {
			t.Error("zeroing a view did not zero exactly its elements")
		}
		for i, v := range download(t, e, kept) {
			if v != float64(a[i]) {
				t.Fatalf("element %d is %g after others came and went, want %g", i, v, a[i])
			}
		}
		ws.Reset()
	}
}
