package sweep

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/job"
)

// contestGrid has nine learning rates of dpt and one of pt on two tasks, with two seeds.
func contestGrid() Grid {
	g := Grid{
		Preset:  "custom",
		Models:  []string{""},
		Tasks:   []string{"rte", "cb"},
		Prompts: []Prompt{dpt, pt},
		Shots:   []int{0},
		Seeds:   []uint64{1, 2},
		Halving: &Halving{Eta: 3, Rungs: 3},
	}
	g.Settings = job.DefaultSettings()
	g.Settings.Epochs = 20
	rates := []Rate{{"pt", 0.3}}
	for i := range 9 {
		rates = append(rates, Rate{"dpt", float64(i+1) / 10})
	}
	g.VaryLearningRates(rates)
	return g
}

// contestScore is best for rte at a learning rate of 0.4 and for cb at 0.7. Seeds 1 and 2 are far
// apart, and more epochs always help.
func contestScore(s job.Settings) float64 {
	best := map[string]float64{"rte": 0.4, "cb": 0.7}[s.Task]
	return 60 - 10*math.Abs(s.LR-best) + 5*float64(s.Seed) + float64(s.Epochs)/100
}

// sortedKeys are the keys of results.
func sortedKeys(list []Result) (keys []string) {
	for _, x := range list {
		keys = append(keys, x.Key)
	}
	slices.Sort(keys)
	return keys
}

func TestHalving(t *testing.T) {
	t.Parallel()
	g := contestGrid()
	if err := g.Validate(); err != nil {
		t.Fatal(err)
	}
	// In each task (9 + 3 + 1) rates of dpt and one of pt, twice.
	if got := g.Total(); got != 2*(13+1)*2 {
		t.Errorf("%d runs in all, want %d", got, 2*(13+1)*2)
	}
	calm := t.TempDir()
	if err := runSweep(t, &fakeQueue{score: contestScore}, g, "", calm); err != nil {
		t.Fatal(err)
	}
	list := mustRead(t, calm, g.Total())
	budgets := map[int]int64{1: 2, 2: 6, 0: 20} // by rung: a ninth of 20 epochs, a third, all
	var full []string
	for _, x := range list {
		if x.Budget != budgets[x.Rung] {
			t.Errorf("run %s has %d epochs, want %d", x.Key, x.Budget, budgets[x.Rung])
		}
		if x.Rung == 0 {
			full = append(full, x.Key)
		}
	}
	slices.Sort(full)
	want := []string{
		"embedded-cb-dpt-c100-b10-lr0.7-seed1",
		"embedded-cb-dpt-c100-b10-lr0.7-seed2",
		"embedded-cb-pt-c100-lr0.3-seed1",
		"embedded-cb-pt-c100-lr0.3-seed2",
		"embedded-rte-dpt-c100-b10-lr0.4-seed1",
		"embedded-rte-dpt-c100-b10-lr0.4-seed2",
		"embedded-rte-pt-c100-lr0.3-seed1",
		"embedded-rte-pt-c100-lr0.3-seed2",
	}
	if !slices.Equal(full, want) {
		t.Errorf("runs with the whole budget: %q, want %q", full, want)
	}

	// Stopped anywhere, a few times, the same sweep ends with the same results.
	for _, calls := range []int{43, 50, 55} {
		dir := t.TempDir()
		q := &fakeQueue{score: contestScore}
		stops := 0
		for err := errStopped; err != nil && stops < 100; stops++ {
			err = runSweep(t, &stoppedQueue{q, calls}, g, "", dir)
			if err != nil && !errors.Is(err, errStopped) {
				t.Fatal(err)
			}
		}
		got, err := Read(dir)
		if err != nil || !slices.Equal(sortedKeys(got), sortedKeys(list)) || stops < 2 || len(q.jobs) != g.Total() {
			t.Errorf("stopped %d times: %d results (%v) of %d jobs, want those of %d",
				stops-1, len(got), err, len(q.jobs), len(list))
		}
	}

	// A results file that was cut back goes on too.
	data, err := os.ReadFile(filepath.Join(calm, File))
	if err != nil {
		t.Fatal(err)
	}
	cut := t.TempDir()
	if err := os.WriteFile(filepath.Join(cut, File), data[:len(data)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := runSweep(t, &fakeQueue{score: contestScore}, g, "", cut); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, cut, g.Total()); !slices.Equal(sortedKeys(got), sortedKeys(list)) {
		t.Errorf("cut back: results %q, want %q", sortedKeys(got), sortedKeys(list))
	}
}

// TestHalvingWithoutAResult: a run that fails holds up its own contest and no other; the next call
// goes on.
func TestHalvingWithoutAResult(t *testing.T) {
	t.Parallel()
	g := contestGrid()
	bad := "embedded-rte-dpt-c100-b10-lr0.5-seed2-rung1"
	q := &fakeQueue{score: contestScore, fails: bad}
	dir := t.TempDir()
	want := "1 of 56 runs have no result; the first: " + bad
	if err := runSweep(t, q, g, "", dir); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
	mustRead(t, dir, g.Total()-1-2*4) // without the bad run, and 3 + 1 rates in the rungs after it
	if err := runSweep(t, q, g, "", dir); err != nil {
		t.Error(err)
	}
	mustRead(t, dir, g.Total())
}

func TestBest(t *testing.T) {
	p := func(b int) Prompt { return Prompt{Method: "dpt", Bottleneck: b} }
	r := Rung{Number: 1, Standings: []Standing{
		{Prompt: p(1), Score: 5, Loss: 2},
		{Prompt: p(2), Score: 7, Loss: 2},
		{Prompt: p(3), Score: 7, Loss: 1},
		{Prompt: p(4), Score: 5, Loss: 2},
	}}
	for i, want := range [][]Prompt{{p(3)}, {p(2), p(3)}, {p(1), p(2), p(3)}} {
		if got := r.best(i + 1); !slices.Equal(got, want) {
			t.Errorf("best %d: %v, want %v", i+1, got, want)
		}
	}
}

func TestHalvingRefuses(t *testing.T) {
	for _, c := range []struct {
		want   string // part of the error
		change func(*Grid)
	}{
		{"want 2 to 64", func(g *Grid) { g.Halving.Eta = 1 }},
		{"and 2 to 16", func(g *Grid) { g.Halving.Rungs = 1 }},
		{"the first has 1/9 of 8 epochs", func(g *Grid) { g.Settings.Epochs = 8 }},
		{"the first has 1/9 of 5 steps", func(g *Grid) { g.Settings.Steps = 5 }},
		{"no method has more than one candidate", func(g *Grid) { g.Prompts = []Prompt{dpt, pt} }},
	} {
		g := contestGrid()
		c.change(&g)
		if err := g.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
}
