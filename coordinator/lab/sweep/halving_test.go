package sweep

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/job"
)

// contest is nine learning rates of dpt and one of pt on two tasks, with two seeds.
func contest() Grid {
	g := Grid{Preset: "custom", Models: []string{""}, Tasks: []string{"rte", "cb"}, Prompts: []Prompt{dpt, pt}, Shots: []int{0}, Seeds: []uint64{1, 2}, Halving: &Halving{Eta: 3, Rungs: 3}}
	g.Settings = job.DefaultSettings()
	g.Settings.Epochs = 20
	rates := []Rate{{"pt", 0.3}}
	for i := range 9 {
		rates = append(rates, Rate{"dpt", float64(i+1) / 10})
	}
	g.LearningRates(rates)
	return g
}

// suits is best for rte at a learning rate of 0.4 and for cb at 0.7; seeds 1 and 2 are far apart, and more epochs always help.
func suits(s job.Settings) float64 {
	best := map[string]float64{"rte": 0.4, "cb": 0.7}[s.Task]
	return 60 - 10*math.Abs(s.LR-best) + 5*float64(s.Seed) + float64(s.Epochs)/100
}

// giveUp is a queue whose coordinator goes on while this client is stopped after some looks at it.
type giveUp struct {
	*queue
	looks int
}

var errStopped = errors.New("stopped")

func (q *giveUp) List(ctx context.Context, names []string) ([]*coordpb.Job, error) {
	if q.looks--; q.looks < 0 {
		return nil, errStopped
	}
	return q.queue.List(ctx, names)
}

func TestHalving(t *testing.T) {
	g := contest()
	if err := g.Validate(); err != nil {
		t.Fatal(err)
	}
	// In each task (9 + 3 + 1) rates of dpt and one of pt, twice.
	if got := g.Total(); got != 2*(13+1)*2 {
		t.Errorf("%d runs in all, want %d", got, 2*(13+1)*2)
	}
	run := func(q Jobs, dir string) error {
		results, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer results.Close()
		return (&Runner{Jobs: q, Grid: g, Results: results, Logger: slog.New(slog.DiscardHandler)}).Run(context.Background())
	}
	calm := t.TempDir()
	if err := run(&queue{base: map[string]job.Settings{}, score: suits}, calm); err != nil {
		t.Fatal(err)
	}
	list, err := Read(calm)
	if err != nil || len(list) != g.Total() {
		t.Fatalf("%d results (%v), want %d", len(list), err, g.Total())
	}
	budgets := map[int]int64{1: 2, 2: 6, 0: 20} // of 20 epochs a ninth, a third, all
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
	want := []string{"embedded-cb-dpt-c100-b10-lr0.7-seed1", "embedded-cb-dpt-c100-b10-lr0.7-seed2", "embedded-cb-pt-c100-lr0.3-seed1", "embedded-cb-pt-c100-lr0.3-seed2",
		"embedded-rte-dpt-c100-b10-lr0.4-seed1", "embedded-rte-dpt-c100-b10-lr0.4-seed2", "embedded-rte-pt-c100-lr0.3-seed1", "embedded-rte-pt-c100-lr0.3-seed2"}
	if !slices.Equal(full, want) {
		t.Errorf("runs with the whole budget: %q, want %q", full, want)
	}

	// Stopped anywhere, a few times, the same command ends with the same results.
	keys := func(list []Result) (keys []string) {
		for _, x := range list {
			keys = append(keys, x.Key)
		}
		slices.Sort(keys)
		return keys
	}
	for _, every := range []int{43, 50, 55} {
		dir := t.TempDir()
		q := &queue{base: map[string]job.Settings{}, score: suits}
		stops := 0
		for err := errStopped; err != nil && stops < 100; stops++ {
			if err = run(&giveUp{q, every}, dir); err != nil && !errors.Is(err, errStopped) {
				t.Fatal(err)
			}
		}
		got, err := Read(dir)
		if err != nil || !slices.Equal(keys(got), keys(list)) || stops < 2 || len(q.jobs) != g.Total() {
			t.Errorf("stopped %d times: %d results (%v) of %d jobs, want those of %d", stops-1, len(got), err, len(q.jobs), len(list))
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
	if err := run(&queue{base: map[string]job.Settings{}, score: suits}, cut); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(cut); err != nil || !slices.Equal(keys(got), keys(list)) {
		t.Errorf("cut back: %d results (%v), want those of %d", len(got), err, len(list))
	}
}

// TestHalvingWithoutAResult: a run that fails holds up its own contest and no other; the next start goes on.
func TestHalvingWithoutAResult(t *testing.T) {
	g := contest()
	bad := "embedded-rte-dpt-c100-b10-lr0.5-seed2-rung1"
	q := &queue{base: map[string]job.Settings{}, score: suits, fails: map[string]bool{bad: true}}
	dir := t.TempDir()
	for _, want := range []string{"1 of 56 runs have no result; the first: " + bad, ""} {
		results, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		err = (&Runner{Jobs: q, Grid: g, Results: results, Logger: slog.New(slog.DiscardHandler)}).Run(context.Background())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("error %v, want %q", err, want)
		}
		if got := results.Len(); want == "" && got != g.Total() || want != "" && got != g.Total()-1-2*4 {
			t.Errorf("%d results of %d", got, g.Total())
		}
		results.Close()
	}
}

func TestBest(t *testing.T) {
	p := func(b int) Prompt { return Prompt{Method: "dpt", Bottleneck: b} }
	r := Rung{Number: 1, Standings: []Standing{{Prompt: p(1), Score: 5, Loss: 2}, {Prompt: p(2), Score: 7, Loss: 2}, {Prompt: p(3), Score: 7, Loss: 1}, {Prompt: p(4), Score: 5, Loss: 2}}}
	for n, want := range map[int][]Prompt{1: {p(3)}, 2: {p(2), p(3)}, 3: {p(1), p(2), p(3)}} {
		if got := r.best(n); !slices.Equal(got, want) {
			t.Errorf("best %d: %v, want %v", n, got, want)
		}
	}
}

func TestHalvingRefuses(t *testing.T) {
	for want, change := range map[string]func(*Grid){
		"want 2 to 64":                          func(g *Grid) { g.Halving.Eta = 1 },
		"and 2 to 16":                           func(g *Grid) { g.Halving.Rungs = 1 },
		"the first has 1/9 of 8 epochs":         func(g *Grid) { g.Settings.Epochs = 8 },
		"the first has 1/9 of 5 steps":          func(g *Grid) { g.Settings.Steps = 5 },
		"no method has more than one candidate": func(g *Grid) { g.Prompts = []Prompt{dpt, pt} },
	} {
		g := contest()
		change(&g)
		if err := g.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}
