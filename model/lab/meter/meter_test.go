package meter_test

import (
	"testing"
	"time"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/portable"
	"github.com/dptune/dpt/model/internal/enginetest"
	"github.com/dptune/dpt/model/lab/meter"
)

// TestConformance: an engine that is measured still fulfills the contract.
func TestConformance(t *testing.T) {
	enginetest.Run(t, func(threads int) engine.Engine { return meter.New(portable.New[float32](threads)) }, 2e-6)
}

// TestNumerics: measuring changes neither bits nor Numerics.
func TestNumerics(t *testing.T) {
	enginetest.Wrapper(t, func(e engine.Trainer) engine.Engine { return meter.New(e) })
}

func TestMeasures(t *testing.T) {
	m := meter.New(portable.New[float32](1))
	defer m.Close()
	none := m.Isolate()
	none.Run(time.Millisecond)
	if median, fastest := none.Limits(); median != 0 || fastest != 0 {
		t.Error("a limit before any product ran")
	}
	w, err := m.NewLinear(engine.LinearSpec{In: 8, Weights: [][]float32{make([]float32, 8*6)}})
	if err != nil {
		t.Fatal(err)
	}
	heads, err := m.NewHeads(2, 8, make([]float32, 6*8))
	if err != nil {
		t.Fatal(err)
	}
	ws := m.NewWorkspace()
	x := ws.Tensor(engine.Narrow, 10, 8)
	m.Zero(x)
	mark := ws.Mark()
	y := ws.Tensor(engine.Wide, 10, 6)
	m.Part("one")
	m.LinearForward(y, x, w)
	m.LinearForward(y, x, w)
	m.Part("two")
	m.LinearBackward(x, y, w, true)
	up := ws.Tensor(engine.Narrow, 20, 8)
	m.ExpandHeads(up, y, heads)
	lse := ws.Tensor(engine.Wide, 20, 1)
	out := ws.Tensor(engine.Narrow, 20, 8)
	m.SharedAttentionForward(out, lse, up, x,
		ws.Segments(engine.SegmentSpec{Q: []engine.Span{{Len: 20}}, KV: []engine.Span{{Len: 10}}}))
	ws.Release(mark)
	ws.Tensor(engine.Wide, 1, 1)

	var got []meter.Entry
	for _, e := range m.Entries() {
		if e.Time < 0 {
			t.Errorf("%s %s took %v", e.Part, e.Kind, e.Time)
		}
		e.Time = 0
		got = append(got, e)
	}
	want := []meter.Entry{
		{Part: "", Kind: meter.Other, Calls: 1},
		{Part: "one", Kind: meter.Linear, Calls: 2, FLOPs: 2 * 2 * 10 * 8 * 6},
		{Part: "two", Kind: meter.Linear, Calls: 2, FLOPs: 2*10*8*6 + 2*10*6*8},
		{Part: "two", Kind: meter.Attention, Calls: 1, FLOPs: 2 * 2 * 20 * 10 * 8},
	}
	if len(got) != len(want) {
		t.Fatalf("entries %+v, want %+v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("entry %d is %+v, want %+v", i, got[i], want[i])
		}
	}
	if total := m.FLOPs(); total != 4*960+6400 {
		t.Errorf("%v FLOPs in all, want %v", total, 4*960+6400)
	}
	if peak, want := m.PeakElems(), 80+60+160+20+160; peak != want {
		t.Errorf("at most %d numbers at once, want %d", peak, want)
	}
	isolated := m.Isolate()
	for range 2 {
		isolated.Run(time.Millisecond)
	}
	if median, fastest := isolated.Limits(); !(median > 0) || fastest < median {
		t.Errorf("limits %v by medians and %v by the fastest times, want more than 0 and no less", median, fastest)
	}
	if total := m.FLOPs(); total != 4*960+6400 {
		t.Errorf("%v FLOPs in all after isolated runs, want %v as before", total, 4*960+6400)
	}
	m.Reset()
	if len(m.Entries()) != 0 || m.FLOPs() != 0 || m.PeakElems() != 81 {
		t.Errorf("after Reset: %v, %v FLOPs, %d numbers", m.Entries(), m.FLOPs(), m.PeakElems())
	}
}
