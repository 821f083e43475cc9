package sweep

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/dptune/dpt/coordinator/job"
)

// Halving is successive halving (Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016) among the
// prompts of one method, which differ in sizes or learning rate, on one model, task and size of the training set. All train first with a part of the budget; the best
// 1/Eta of them, by the mean score over seeds, go on with Eta times as much, until the last rung has the whole.
//
// Every rung trains anew, so that its schedule of the learning rate is that of its own length. What runs is a pure function of the results.
type Halving struct {
	Eta   int `json:"eta"`   // one of Eta goes on
	Rungs int `json:"rungs"` // the last one included
}

// share is the part of the budget that a rung has: 1 of so many; at most 2^31.
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
		return fmt.Errorf("halving by %d in %d rungs: the first has 1/%d of %d %s, want at least one", h.Eta, h.Rungs, n, budget, unit)
	}
	most := 0
	for _, c := range g.contests() {
		most = max(most, len(c.prompts))
	}
	if most < 2 {
		return fmt.Errorf("halving: no method has more than one candidate, want several sizes or learning rates")
	}
	return nil
}

func (g Grid) budget() (n int64, unit string) {
	if g.Settings.Steps > 0 {
		return g.Settings.Steps, "steps"
	}
	return int64(g.Settings.Epochs), "epochs"
}

// Budget says how long the rung's runs train.
func (g Grid) Budget(rung int) string {
	n, unit := g.budget()
	return fmt.Sprintf("%d %s", n/g.Halving.share(rung), unit)
}

// Contest is the candidates of one method on one model, task and size of the training set.
type Contest struct {
	Model, Task, Method string
	Shots               int
	prompts             []Prompt
}

func (g Grid) contests() (list []Contest) {
	for _, m := range g.Models {
		for _, k := range g.Shots {
			for _, t := range g.Tasks {
				of := map[string]int{}
				for _, p := range g.Prompts {
					i, ok := of[p.Method]
					if !ok {
						i = len(list)
						of[p.Method] = i
						list = append(list, Contest{Model: m, Task: t, Method: p.Method, Shots: k})
					}
					list[i].prompts = append(list[i].prompts, p)
				}
			}
		}
	}
	return list
}

// runs are the candidates' in a rung, each with every seed.
func (g Grid) runs(c Contest, candidates []Prompt, rung int) (runs []Run) {
	for _, p := range candidates {
		for _, s := range g.Seeds {
			runs = append(runs, Run{Model: c.Model, Task: c.Task, Method: c.Method, PromptLength: p.Length, Bottleneck: p.Bottleneck, LR: p.LR, Shots: c.Shots, Seed: s, Rung: rung})
		}
	}
	return runs
}

// Due lists the runs that the results so far, by key, call for: those that are done and those that can be done now.
func (g Grid) Due(results map[string]Result) (runs []Run) {
	if g.Halving == nil {
		return g.Runs()
	}
	for _, c := range g.contests() {
		for _, r := range g.Course(c, results) {
			for _, s := range r.Standings {
				runs = append(runs, s.Runs...)
			}
		}
	}
	return runs
}

// Contests lists what is decided by halving, in the grid's order.
func (g Grid) Contests() []Contest { return g.contests() }

// Rung is one round of a contest.
type Rung struct {
	Number    int // 0: the last, with the whole budget
	Standings []Standing
}

// Standing is how a candidate did in a rung.
type Standing struct {
	Prompt Prompt
	Runs   []Run   // one a seed
	Done   bool    // all of them
	Score  float64 // mean over seeds of the best evaluations' scores
	Loss   float64 // and of their losses
}

// Course lists the contest's rungs as far as the results decide them. The last one is under way unless all its standings are done.
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
			s := g.standing(g.runs(c, []Prompt{p}, number), results)
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

func (g Grid) standing(runs []Run, results map[string]Result) Standing {
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

// bestLoss is the loss of the evaluation that the result is of.
func (r Result) bestLoss() float64 {
	for _, e := range r.Evaluations {
		if e.Step == r.BestStep {
			return e.Loss
		}
	}
	return math.Inf(1)
}

// best are the n best prompts, in the grid's order: by score, among equals by loss, among equals the earlier.
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

// Total is the number of runs until the end.
func (g Grid) Total() (runs int) {
	if g.Halving == nil {
		return len(g.Runs())
	}
	for _, c := range g.contests() {
		n := len(c.prompts)
		for rung := 1; rung < g.Halving.Rungs && n > 1; rung++ {
			runs += n * len(g.Seeds)
			n = max(1, n/g.Halving.Eta)
		}
		runs += n * len(g.Seeds)
	}
	return runs
}

// settings are the run's, on top of those that all runs share.
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
		s.LR = job.FineTuningLR // nobody has chosen one, and a prompt's would not do
	}
	if n := g.Halving.share(run.Rung); s.Steps > 0 {
		s.Steps /= n
	} else {
		s.Epochs /= int(n)
	}
	return s
}
