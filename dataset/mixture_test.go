package dataset

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// count sums how often a mixture's first epochs visit each example.
func count(t *testing.T, m *Mixture, epochs int64, examples int) []int {
	t.Helper()
	seen := make([]int, examples)
	for step := range epochs * m.StepsPerEpoch() {
		epoch, micro := m.Step(step)
		if epoch != step/m.StepsPerEpoch() {
			t.Fatalf("step %d belongs to epoch %d", step, epoch)
		}
		for _, group := range micro {
			for _, i := range group {
				seen[i]++
			}
		}
	}
	return seen
}

func TestMixtureShares(t *testing.T) {
	for _, c := range []struct {
		name   string
		shares Shares
		want   []int // of an epoch
	}{
		{"proportional", Proportional(100), []int{6, 40, 3}},
		{"limited", Proportional(10), []int{6, 10, 3}},
		{"equal", Equal, []int{17, 17, 17}},
	} {
		sizes := []int{6, 40, 3}
		m, err := NewMixture(sizes, c.shares, 4, 2, 7)
		if err != nil {
			t.Fatal(err)
		}
		const epochs = 12
		seen := count(t, m, epochs, 49)
		base := 0
		for i, n := range sizes {
			part := seen[base : base+n]
			base += n
			total := 0
			for _, k := range part {
				total += k
			}
			if total != epochs*c.want[i] {
				t.Errorf("%s: task %d is seen %d times in %d epochs, want %d an epoch",
					c.name, i, total, epochs, c.want[i])
			}
			// All of a task come before any comes again.
			if slices.Max(part)-slices.Min(part) > 1 {
				t.Errorf("%s: examples of task %d are seen %v times, want no two counts more than one apart",
					c.name, i, part)
			}
		}
	}
}

// TestMixtureIsPure: steps in any order, by any mixture of the same settings, are the same; another
// seed's are not.
func TestMixtureIsPure(t *testing.T) {
	make2 := func(seed uint64) *Mixture {
		m, err := NewMixture([]int{5, 9}, Proportional(7), 4, 3, seed)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	a, b, other := make2(1), make2(1), make2(2)
	differ := 0
	for step := int64(20); step >= 0; step-- {
		_, x := a.Step(step)
		_, y := b.Step(20 - step)
		_, again := a.Step(20 - step)
		if fmt.Sprint(y) != fmt.Sprint(again) {
			t.Fatalf("step %d is %v and %v", 20-step, y, again)
		}
		if _, z := other.Step(step); fmt.Sprint(x) != fmt.Sprint(z) {
			differ++
		}
		for i, group := range x {
			if len(group) > 3 || i < len(x)-1 && len(group) != 3 {
				t.Errorf("step %d: micro-batches %v, want all of 3 but the last", step, x)
			}
		}
	}
	if differ < 15 {
		t.Errorf("two seeds give the same batch in %d of 21 steps", 21-differ)
	}
	if _, got := a.Step(0); fmt.Sprint(got) != "[[4 6 1] [10]]" {
		t.Errorf("the first batch is %v; every mixture that was trained depends on it", got)
	}
}

func TestMixtureRefuses(t *testing.T) {
	for _, c := range []struct {
		want   string // in the error
		sizes  []int
		shares Shares
		batch  int
	}{
		{"task 2 of the mixture has 0 examples", []int{1, 0}, Equal, 1},
		{"a share of 0", []int{1, 2}, Proportional(0), 1},
		{"in batches of 0", []int{1, 2}, Equal, 0},
		{"mixture of 0 tasks", nil, Equal, 1},
	} {
		_, err := NewMixture(c.sizes, c.shares, c.batch, 1, 1)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
}
