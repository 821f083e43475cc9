package dataset

import (
	"slices"
	"testing"
)

func TestSamplerVisitsAllOncePerEpoch(t *testing.T) {
	for _, c := range []struct{ examples, batch, micro int }{
		{1, 1, 1}, {10, 4, 2}, {10, 4, 3}, {12, 4, 4}, {7, 100, 3}, {100, 16, 5}, {3, 1, 8},
	} {
		s, err := NewSampler(c.examples, c.batch, c.micro, 5)
		if err != nil {
			t.Fatal(err)
		}
		var orders [][]int
		for epoch := range int64(3) {
			var order []int
			for i := range s.StepsPerEpoch() {
				e, micro := s.Step(epoch*s.StepsPerEpoch() + i)
				if e != epoch {
					t.Errorf("%v: step %d belongs to epoch %d, want %d", c, i, e, epoch)
				}
				size := 0
				for j, group := range micro {
					if len(group) == 0 || len(group) > c.micro || j < len(micro)-1 && len(group) < c.micro {
						t.Errorf("%v: micro-batches are %v, want full ones except the last", c, micro)
					}
					size += len(group)
					order = append(order, group...)
				}
				if last := i == s.StepsPerEpoch()-1; size > c.batch || size < c.batch && !last {
					t.Errorf("%v: step %d has %d examples, want %d unless it is the epoch's last", c, i, size, c.batch)
				}
			}
			orders = append(orders, slices.Clone(order))
			slices.Sort(order)
			for i, j := range order {
				if i != j || len(order) != c.examples {
					t.Fatalf("%v: epoch %d visits %v, want each of %d examples once", c, epoch, order, c.examples)
				}
			}
		}
		if c.examples > 9 && (slices.Equal(orders[0], orders[1]) || slices.Equal(orders[1], orders[2])) {
			t.Errorf("%v: two epochs have one order %v", c, orders)
		}
	}
}

func TestSamplerIsPure(t *testing.T) {
	a, _ := NewSampler(10, 3, 2, 9)
	first := map[int64][][]int{}
	for step := range int64(20) {
		_, first[step] = a.Step(step)
	}
	b, _ := NewSampler(10, 3, 2, 9)
	for _, step := range []int64{19, 0, 7, 7, 12, 3, 19} {
		_, got := b.Step(step)
		if !slices.EqualFunc(got, first[step], slices.Equal) {
			t.Errorf("step %d is %v after others, want %v", step, got, first[step])
		}
	}
	c, _ := NewSampler(10, 3, 2, 10)
	if _, got := c.Step(0); slices.EqualFunc(got, first[0], slices.Equal) {
		t.Errorf("two seeds start alike: %v", got)
	}
}

// What a seed means must never change: a running job's steps would.
func TestSamplerBitsNeverChange(t *testing.T) {
	s, _ := NewSampler(10, 4, 2, 42)
	for step, want := range map[int64][][]int{
		0: {{7, 0}, {3, 2}},
		5: {{5, 2}},
	} {
		if _, got := s.Step(step); !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("step %d is %v, want %v", step, got, want)
		}
	}
}

func TestSamplerRefuses(t *testing.T) {
	for _, c := range [][3]int{{0, 1, 1}, {1, 0, 1}, {1, 1, 0}, {-1, 1, 1}} {
		if _, err := NewSampler(c[0], c[1], c[2], 0); err == nil {
			t.Errorf("sampler of %v is made, want an error", c)
		}
	}
	s, _ := NewSampler(1, 1, 1, 0)
	defer func() {
		if recover() == nil {
			t.Error("step -1 returned, want a panic")
		}
	}()
	s.Step(-1)
}

func TestKShot(t *testing.T) {
	s := loadEmbedded(t, "record", "train", DPT)
	few, err := s.KShot(8, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(few.Train) != 8 || len(few.Eval) != len(s.Eval) || !few.Labeled || few.Task != s.Task {
		t.Errorf("8-shot split has %d training and %d evaluation examples, want 8 and %d",
			len(few.Train), len(few.Eval), len(s.Eval))
	}
	ids := func(s *Split) (ids []string) {
		for _, e := range s.Train {
			ids = append(ids, e.ID)
		}
		return ids
	}
	all := ids(s)
	var places []int
	for _, id := range ids(few) {
		places = append(places, slices.Index(all, id))
	}
	if !slices.IsSorted(places) || places[0] < 0 || len(slices.Compact(slices.Clone(places))) != 8 {
		t.Errorf("places are %v, want 8 different ones in the order of the file", places)
	}
	again, _ := s.KShot(8, 1)
	if !slices.Equal(ids(again), ids(few)) || again.Digest != few.Digest {
		t.Error("the same seed draws other examples")
	}
	other, _ := s.KShot(8, 2)
	if slices.Equal(ids(other), ids(few)) {
		t.Error("another seed draws the same examples")
	}
	more, _ := s.KShot(16, 1)
	for _, id := range ids(few) {
		if !slices.Contains(ids(more), id) {
			t.Errorf("16-shot lacks %s of 8-shot", id)
		}
	}
	if len(s.Train) != len(all) || s.Train[0].ID != all[0] {
		t.Error("drawing changes the split drawn from")
	}
	for _, k := range []int{0, -1, len(all) + 1} {
		if _, err := s.KShot(k, 1); err == nil {
			t.Errorf("%d-shot is drawn from %d examples, want an error", k, len(all))
		}
	}
}
