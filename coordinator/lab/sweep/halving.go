package sweep

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/dptune/dpt/coordinator/job"
)

// Halving is successive halving (Jamieson and Talwalkar, "Non-stochastic Best Arm Identification
// and Hyperparameter Optimization", AISTATS 2016). The candidates are the prompts of one method,
// which differ in sizes or learning rate, on one model, task and size of the training set. All of
// them train first with a part of the budget; the best 1/Eta of them, by the mean score over seeds,
// go on with Eta times as much, until the last rung has the whole budget.
//
// Every rung trains from the start, so that the schedule of its learning rate has its own length.
// Which runs are due is a pure function of the results.
type Halving struct {
	Eta   int `json:"eta"`   // one of Eta candidates goes on
	Rungs int `json:"rungs"` // with the last one, which has the whole budget
}

// share is the part of the budget that a rung has: one share-th of it; at most 2^31.
func (h *Halving) share(rung int) int64 {
	if h == nil || rung == 0 {
		return 1
	}
	n := int64(1)
	for r := rung; r < h.Rungs && n < 1<<24; r++ {
		n *= int64(h.Eta)
	}
	return n
}

// validateHalving checks that the halving, if any, has enough budget and candidates.
func (g Grid) validateHalving() error {
	h := g.Halving
	if h == nil {
		return nil
	}
	if h.Eta < 2 || h.Eta > 64 || h.Rungs < 2 || h.Rungs > 16 {
		return fmt.Errorf("halving by %d in %d rungs, want 2 to 64 and 2 to 16", h.Eta, h.Rungs)
	}
	budget, unit := g.budget()
	if n := h.share(1); budget < n {
		return fmt.Errorf("halving by %d in %d rungs: the first has 1/%d of %d %s, want at least one",
			h.Eta, h.Rungs, n, budget, unit)
	}
	most := 0
	for _, c := range g.Contests() {
		most = max(most, len(c.prompts))
	}
	if most < 2 {
		return fmt.Errorf("halving: no method has more than one candidate, want several sizes or learning rates")
	}
	return nil
}

// budget is how long a run with the whole budget trains.
func (g Grid) budget() (n int64, unit string) {
	if g.Settings.Steps > 0 {
		return g.Settings.Steps, "steps"
	}
	return int64(g.Settings.Epochs), "epochs"
}

// Budget is how long the rung's runs train, for people.
func (g Grid) Budget(rung int) string {
	n, unit := g.budget()
	return fmt.Sprintf("%d %s", n/g.Halving.share(rung), unit)
}

// Contest is the candidates of one method on one model, task and size of the training set.
type Contest struct {
	Model, Task, Method string
	Shots               int
	prompts             []Prompt // of all candidates, in the grid's order
}

// Contests lists what is decided by halving, in the grid's order.
func (g Grid) Contests() (list []Contest) {
	for _, m := range g.Models {
		for _, k := range g.Shots {
			for _, t := range g.Tasks {
				byMethod := map[string]int{} // index into list
				for _, p := range g.Prompts {
					i, ok := byMethod[p.Method]
					if !ok {
						i = len(list)
						byMethod[p.Method] = i
						list = append(list, Contest{Model: m, Task: t, Method: p.Method, Shots: k})
					}
					list[i].prompts = append(list[i].prompts, p)
				}
			}
		}
	}
	return list
}

// candidateRuns are a candidate's runs in a rung, one a seed.
func (g Grid) candidateRuns(c Contest, candidate Prompt, rung int) (runs []Run) {
	for _, s := range g.Seeds {
		runs = append(runs, candidate.run(Run{Model: c.Model, Task: c.Task, Shots: c.Shots, Seed: s, Rung: rung}))
	}
	return runs
}

// Due lists the runs that the results so far, by key, call for: those that have a result and those
// that can run now.
func (g Grid) Due(results map[string]Result) (runs []Run) {
	if g.Halving == nil {
		return g.Runs()
	}
	for _, c := range g.Contests() {
		for _, r := range g.Course(c, results) {
			for _, s := range r.Standings {
				runs = append(runs, s.Runs...)
			}
		}
	}
	return runs
}

// Rung is one round of a contest.
type Rung struct {
	Number    int // from 1; 0: the last one, with the whole budget
	Standings []Standing
}

// Standing is the result of a candidate in a rung.
type Standing struct {
	Prompt Prompt
	Runs   []Run   // one a seed
	Done   bool    // all runs have a result; otherwise Score and Loss mean nothing
	Score  float64 // mean over seeds of the best evaluations' scores
	Loss   float64 // mean over seeds of the best evaluations' losses
}

// Course lists the contest's rungs as far as the results, by key, decide them. The last one listed
// is under way unless all its standings are done.
func (g Grid) Course(c Contest, results map[string]Result) (rungs []Rung) {
	candidates := c.prompts
	for number := 1; ; number++ {
		last := number >= g.Halving.Rungs || len(candidates) == 1
		if last {
			number = 0
		}
		r := Rung{Number: number}
		done := true
		for _, p := range candidates {
			s := standing(g.candidateRuns(c, p, number), results)
			s.Prompt = p
			done = done && s.Done
			r.Standings = append(r.Standings, s)
		}
		rungs = append(rungs, r)
		if last || !done {
			return rungs
		}
		candidates = r.best(max(1, len(candidates)/g.Halving.Eta))
	}
}

// standing sums up the results of a candidate's runs.
func standing(runs []Run, results map[string]Result) Standing {
	s := Standing{Runs: runs, Done: true}
	for _, r := range runs {
		x, ok := results[r.Key()]
		if !ok {
			s.Done = false
			continue
		}
		s.Score += x.Score / float64(len(runs))
		s.Loss += x.bestLoss() / float64(len(runs))
	}
	return s
}

// bestLoss is the loss of the run's best evaluation; +Inf if the result does not list it.
func (r Result) bestLoss() float64 {
	for _, e := range r.Evaluations {
		if e.Step == r.BestStep {
			return e.Loss
		}
	}
	return math.Inf(1)
}

// best are the rung's n best prompts, in the grid's order. A higher score is better, then a lower
// loss, then the earlier place in the grid.
func (r Rung) best(n int) []Prompt {
	order := make([]int, len(r.Standings))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := r.Standings[a], r.Standings[b]
		return cmp.Or(cmp.Compare(y.Score, x.Score), cmp.Compare(x.Loss, y.Loss))
	})
	order = order[:n]
	slices.Sort(order)
	list := make([]Prompt, n)
	for i, k := range order {
		list[i] = r.Standings[k].Prompt
	}
	return list
}

// Total is the number of runs of the whole sweep.
func (g Grid) Total() (runs int) {
	if g.Halving == nil {
		return len(g.Runs())
	}
	for _, c := range g.Contests() {
		n := len(c.prompts)
		for rung := 1; rung < g.Halving.Rungs && n > 1; rung++ {
			runs += n * len(g.Seeds)
			n = max(1, n/g.Halving.Eta)
		}
		runs += n * len(g.Seeds)
	}
	return runs
}

// settings are those of a job that is the run: what all runs share, with the run's own fields.
func (g Grid) settings(run Run) job.Settings {
	s := g.Settings
	s.Model, s.Task, s.Method, s.Shots, s.Seed = run.Model, run.Task, run.Method, run.Shots, run.Seed
	if run.PromptLength > 0 {
		s.PromptLength = run.PromptLength
	}
	s.Bottleneck = run.Bottleneck
	switch {
	case run.LR > 0:
		s.LR = run.LR
	case s.Method == job.FineTuning && s.LR == job.DefaultSettings().LR:
		s.LR = job.FineTuningLR // nobody has chosen one, and that of a prompt is too high
	}
	if n := g.Halving.share(run.Rung); s.Steps > 0 {
		s.Steps /= n
	} else {
		s.Epochs /= int(n)
	}
	return s
}
