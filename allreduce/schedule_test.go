package allreduce

import (
	"reflect"
	"testing"
)

func TestSchedule(t *testing.T) {
	tests := []struct {
		rank Rank
		size int
		want []hop
	}{
		{0, 1, []hop{}},
		{0, 2, []hop{{Reduce, 0, 0, 1}, {Gather, 0, 1, 0}}},
		{1, 2, []hop{{Reduce, 0, 1, 0}, {Gather, 0, 0, 1}}},
		{0, 3, []hop{{Reduce, 0, 0, 2}, {Reduce, 1, 2, 1}, {Gather, 0, 1, 0}, {Gather, 1, 0, 2}}},
		{2, 3, []hop{{Reduce, 0, 2, 1}, {Reduce, 1, 1, 0}, {Gather, 0, 0, 2}, {Gather, 1, 2, 1}}},
		{1, 4, []hop{
			{Reduce, 0, 1, 0}, {Reduce, 1, 0, 3}, {Reduce, 2, 3, 2},
			{Gather, 0, 2, 1}, {Gather, 1, 1, 0}, {Gather, 2, 0, 3},
		}},
	}
	for _, tt := range tests {
		if got := schedule(tt.rank, tt.size); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("rank %d of %d: got %v, want %v", tt.rank, tt.size, got, tt.want)
		}
	}
}

// TestScheduleReduces plays the schedule on sets of ranks instead of numbers.
func TestScheduleReduces(t *testing.T) {
	for size := 1; size <= 12; size++ {
		plans := make([][]hop, size)
		have := make([][]uint, size) // have[rank][chunk] is the set of ranks summed in it
		for r := range size {
			plans[r] = schedule(Rank(r), size)
			have[r] = make([]uint, size)
			for c := range size {
				have[r][c] = 1 << r
			}
		}
		for i := range 2 * (size - 1) {
			inFlight := make([]uint, size)
			for r := range size {
				h := plans[r][i]
				if i > 0 && h.send != plans[r][i-1].receive {
					t.Fatalf("size %d, rank %d, hop %d: sends chunk %d, but received %d before", size, r, i, h.send, plans[r][i-1].receive)
				}
				if got := plans[(r+1)%size][i]; got.receive != h.send || got.phase != h.phase || got.index != h.index {
					t.Fatalf("size %d, rank %d sends %v, the next rank expects %v", size, r, h, got)
				}
				inFlight[r] = have[r][h.send]
			}
			for r := range size {
				h, from := plans[r][i], (r+size-1)%size
				if h.phase == Gather {
					have[r][h.receive] = inFlight[from]
					continue
				}
				if have[r][h.receive]&inFlight[from] != 0 {
					t.Fatalf("size %d, rank %d, hop %d: a rank is summed twice", size, r, i)
				}
				have[r][h.receive] |= inFlight[from]
			}
		}
		for r := range size {
			for c := range size {
				if have[r][c] != 1<<size-1 {
					t.Errorf("size %d: chunk %d of rank %d sums the ranks %b", size, c, r, have[r][c])
				}
			}
		}
	}
}

func TestSpanCoversTheVector(t *testing.T) {
	for size := 1; size <= 9; size++ {
		for length := range 30 {
			at := 0
			for chunk := range size {
				lo, hi := span(length, size, chunk)
				if lo != at || hi-lo != length/size && hi-lo != length/size+1 {
					t.Errorf("%d numbers in %d chunks: chunk %d is [%d,%d)", length, size, chunk, lo, hi)
				}
				at = hi
			}
			if at != length {
				t.Errorf("%d numbers in %d chunks: they end at %d", length, size, at)
			}
		}
	}
}
