package allreduce

import (
	"reflect"
	"testing"
)

func TestSchedules(t *testing.T) {
	tests := []struct {
		name string
		got  schedule
		want schedule
	}{
		{"alone", ringSchedule(0, 1, 1), schedule{chunks: 1}},
		{"ring of two", ringSchedule(1, 2, 1), schedule{2, []hop{
			{Reduce, 0, 0, 0, 1, 0}, {Gather, 0, 0, 0, 0, 1},
		}}},
		{"ring of three", ringSchedule(2, 3, 1), schedule{3, []hop{
			{Reduce, 0, 0, 1, 2, 1}, {Reduce, 1, 0, 1, 1, 0}, {Gather, 0, 0, 1, 0, 2}, {Gather, 1, 0, 1, 2, 1},
		}}},
		{"ring of four", ringSchedule(1, 4, 1), schedule{4, []hop{
			{Reduce, 0, 2, 0, 1, 0}, {Reduce, 1, 2, 0, 0, 3}, {Reduce, 2, 2, 0, 3, 2},
			{Gather, 0, 2, 0, 2, 1}, {Gather, 1, 2, 0, 1, 0}, {Gather, 2, 2, 0, 0, 3},
		}}},
		{"ring of two, two rounds", ringSchedule(1, 2, 2), schedule{4, []hop{
			{Reduce, 0, 0, 0, 1, 0}, {Gather, 0, 0, 0, 0, 1}, {Reduce, 1, 0, 0, 3, 2}, {Gather, 1, 0, 0, 2, 3},
		}}},
		{"doubling, alone", doublingSchedule(0, 1), schedule{chunks: 1}},
		{"doubling of two", doublingSchedule(1, 2), schedule{1, []hop{
			{Reduce, 0, 0, 0, 0, 0},
		}}},
		{"doubling of four", doublingSchedule(1, 4), schedule{1, []hop{
			{Reduce, 0, 0, 0, 0, 0}, {Reduce, 1, 3, 3, 0, 0},
		}}},
		{"doubling of three, the folded rank", doublingSchedule(2, 3), schedule{1, []hop{
			{Reduce, 0, 0, noRank, 0, 0}, {Gather, 0, noRank, 0, 0, 0},
		}}},
		{"doubling of three, its partner", doublingSchedule(0, 3), schedule{1, []hop{
			{Reduce, 0, noRank, 2, 0, 0}, {Reduce, 1, 1, 1, 0, 0}, {Gather, 0, 2, noRank, 0, 0},
		}}},
		{"doubling of three, the other rank", doublingSchedule(1, 3), schedule{1, []hop{
			{Reduce, 1, 0, 0, 0, 0},
		}}},
	}
	for _, tt := range tests {
		if !reflect.DeepEqual(tt.got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, tt.got, tt.want)
		}
	}
}

// TestSchedulesReduce plays the schedules on sets of ranks instead of numbers, as members at their
// own pace do.
func TestSchedulesReduce(t *testing.T) {
	rounds := func(n int) func(Rank, int) schedule {
		return func(rank Rank, size int) schedule { return ringSchedule(rank, size, n) }
	}
	for name, plan := range map[string]func(Rank, int) schedule{
		"ring":           rounds(1),
		"ring in rounds": rounds(3),
		"doubling":       doublingSchedule,
	} {
		for size := 1; size <= 33; size++ {
			playSchedule(t, name, size, plan)
		}
	}
}

func playSchedule(t *testing.T, name string, size int, plan func(Rank, int) schedule) {
	type message struct {
		phase        Phase
		index, chunk int
		set          uint64
	}
	plans := make([]schedule, size)
	have := make([][]uint64, size) // have[rank][chunk] is the set of ranks summed in it
	at, sent := make([]int, size), make([]bool, size)
	mail := map[[2]Rank][]message{}
	for r := range size {
		plans[r] = plan(Rank(r), size)
		have[r] = make([]uint64, plans[r].chunks)
		for c := range have[r] {
			have[r][c] = 1 << r
		}
	}
	for moved := true; moved; {
		moved = false
		for r := range size {
			if at[r] == len(plans[r].hops) {
				continue
			}
			h := plans[r].hops[at[r]]
			if h.to != noRank && !sent[r] {
				link := [2]Rank{Rank(r), h.to}
				mail[link] = append(mail[link], message{h.phase, h.index, h.send, have[r][h.send]})
			}
			sent[r] = true
			if h.from != noRank {
				link := [2]Rank{h.from, Rank(r)}
				if len(mail[link]) == 0 {
					continue
				}
				m := mail[link][0]
				mail[link] = mail[link][1:]
				if m.phase != h.phase || m.index != h.index || m.chunk != h.receive {
					t.Fatalf("%s, size %d: rank %d gets %+v, want %+v", name, size, r, m, h)
				}
				if h.phase == Gather {
					have[r][h.receive] = m.set
				} else if have[r][h.receive]&m.set != 0 {
					t.Fatalf("%s, size %d, rank %d, hop %d: a rank is summed twice", name, size, r, at[r])
				} else {
					have[r][h.receive] |= m.set
				}
			}
			at[r]++
			sent[r], moved = false, true
		}
	}
	for r := range size {
		if at[r] != len(plans[r].hops) {
			t.Errorf("%s, size %d: rank %d waits in hop %d for ever", name, size, r, at[r])
		}
		for c := range have[r] {
			if have[r][c] != 1<<size-1 {
				t.Errorf("%s, size %d: chunk %d of rank %d sums the ranks %b", name, size, c, r, have[r][c])
			}
		}
	}
	for link, left := range mail {
		if len(left) > 0 {
			t.Errorf("%s, size %d: %d messages from rank %d to %d are never received",
				name, size, len(left), link[0], link[1])
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
