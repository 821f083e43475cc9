// Package sweep describes the paper's experiments as grids of runs, keeps their results, and renders them as the paper's tables and
// figures. It runs nothing itself.
package sweep

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dptune/dpt/coordinator/job"
)

// Run is one training run of a grid: what tells it from the grid's other runs.
type Run struct {
	Model        string  `json:"model"`  // as the user named it; "" is the embedded model
	Task         string  `json:"task"`   // canonical name
	Method       string  `json:"method"` // dpt, pt, respt, svd or ft
	PromptLength int     `json:"prompt_length,omitempty"`
	Bottleneck   int     `json:"bottleneck,omitempty"` // 0: the method's own, or none
	Shots        int     `json:"shots,omitempty"`      // training examples; 0 is all
	Seed         uint64  `json:"seed"`
	LR           float64 `json:"lr,omitempty"`   // learning rate; 0 is the method's of the sweep
	Rung         int     `json:"rung,omitempty"` // of successive halving, with a part of the budget; 0 has all of it
}

// Key names the run within a sweep; it does for a directory's name.
func (r Run) Key() string {
	parts := []string{modelKey(r.Model), r.Task, r.Method}
	if r.PromptLength > 0 {
		parts = append(parts, fmt.Sprintf("c%d", r.PromptLength))
	}
	if r.Bottleneck > 0 {
		parts = append(parts, fmt.Sprintf("b%d", r.Bottleneck))
	}
	if r.Shots > 0 {
		parts = append(parts, fmt.Sprintf("k%d", r.Shots))
	}
	if r.LR > 0 {
		parts = append(parts, "lr"+strconv.FormatFloat(r.LR, 'f', -1, 64))
	}
	parts = append(parts, fmt.Sprintf("seed%d", r.Seed))
	if r.Rung > 0 {
		parts = append(parts, fmt.Sprintf("rung%d", r.Rung))
	}
	return strings.Join(parts, "-")
}

// modelKey is the last element of a model's path, in characters that a file's name may have.
func modelKey(model string) string {
	name := strings.TrimRight(model, "/")
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		name = name[i+1:]
	}
	if name == "" {
		return "embedded"
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_':
			return r
		}
		return '_'
	}, name)
}

// ModelKey names the run's model in file names.
func (r Run) ModelKey() string { return modelKey(r.Model) }

// Prompt is a method with the sizes that an experiment gives it.
type Prompt struct {
	Method     string  `json:"method"`
	Length     int     `json:"length,omitempty"`     // 0: none, as ft has
	Bottleneck int     `json:"bottleneck,omitempty"` // 0: the method's own
	LR         float64 `json:"lr,omitempty"`         // 0: the method's of the sweep
}

// Grid is every combination of its lists, and what its runs share.
type Grid struct {
	Preset  string   `json:"preset"`
	Models  []string `json:"models"`
	Tasks   []string `json:"tasks"`
	Prompts []Prompt `json:"prompts"`
	Shots   []int    `json:"shots"` // training examples; 0 is all
	Seeds   []uint64 `json:"seeds"`

	Halving  *Halving     `json:"halving,omitempty"` // nil: every run has the whole budget
	Settings job.Settings `json:"settings"`          // what all runs share; what a Run says is zero
}

// Runs lists the grid's runs with the whole budget: seeds innermost, so that a row of a table fills up before the next begins.
func (g Grid) Runs() []Run {
	var runs []Run
	for _, m := range g.Models {
		for _, k := range g.Shots {
			for _, t := range g.Tasks {
				for _, p := range g.Prompts {
					for _, s := range g.Seeds {
						runs = append(runs, Run{Model: m, Task: t, Method: p.Method, PromptLength: p.Length, Bottleneck: p.Bottleneck, LR: p.LR, Shots: k, Seed: s})
					}
				}
			}
		}
	}
	return runs
}

// Validate checks that the grid has runs and that no two are the same.
func (g Grid) Validate() error {
	runs := g.Runs()
	if len(runs) == 0 {
		return fmt.Errorf("preset %s: %d models, %d tasks, %d methods, %d sizes of the training set and %d seeds, want at least one of each",
			g.Preset, len(g.Models), len(g.Tasks), len(g.Prompts), len(g.Shots), len(g.Seeds))
	}
	seen := map[string]Run{}
	for _, r := range runs {
		if other, ok := seen[r.Key()]; ok {
			return fmt.Errorf("preset %s: %+v and %+v are both called %s, want every run once", g.Preset, other, r, r.Key())
		}
		seen[r.Key()] = r
	}
	return g.validateHalving()
}

const (
	paperLength     = 100
	paperBottleneck = 10
)

// paperTasks are in the order of Table 1.
var paperTasks = []string{"wsc", "wic", "boolq", "cb", "copa", "multirc", "record", "rte"}

// The paper's prompts. Residual prompt tuning's bottleneck is its own, 400.
var (
	ft     = Prompt{Method: "ft"}
	pt     = Prompt{Method: "pt", Length: paperLength}
	respt  = Prompt{Method: "respt", Length: paperLength}
	short  = Prompt{Method: "respt", Length: 10} // of Table 4
	dpt    = Prompt{Method: "dpt", Length: paperLength, Bottleneck: paperBottleneck}
	probe  = Prompt{Method: "svd", Length: paperLength}
	shapes = map[string]Prompt{"ft": ft, "pt": pt, "respt": respt, "respt-10": short, "dpt": dpt, "svd": probe}
)

// Presets are the experiments by name, in the paper's order, and custom, which has nothing but what the user lists.
var Presets = []string{"table1", "fewshot", "bottleneck", "length", "short", "overparam", "rank", "custom"}

// Preset is the grid of one of the paper's experiments for the given models: three seeds, the paper's tasks, methods and sizes.
func Preset(name string, models []string) (Grid, error) {
	g := Grid{Preset: name, Models: models, Tasks: paperTasks, Shots: []int{0}, Seeds: []uint64{1, 2, 3}}
	four := []string{"wic", "cb", "rte", "copa"}
	switch name {
	case "table1": // Tables 1, 3 and 4
		g.Prompts = []Prompt{ft, pt, short, respt, dpt}
	case "fewshot": // section 5.2, figure 4
		g.Shots, g.Prompts = []int{8, 16, 32}, []Prompt{pt, respt, dpt}
	case "bottleneck": // section 6.1, figures 5 and 10
		g.Tasks, g.Prompts = four, []Prompt{pt, respt}
		for _, b := range []int{4, 6, 8, 10, 12, 14} {
			g.Prompts = append(g.Prompts, Prompt{Method: "dpt", Length: paperLength, Bottleneck: b})
		}
	case "length": // section 6.2, figures 6 and 11
		g.Tasks = four
		for _, c := range []int{20, 100, 200} {
			g.Prompts = append(g.Prompts, Prompt{Method: "pt", Length: c}, Prompt{Method: "respt", Length: c}, Prompt{Method: "dpt", Length: c, Bottleneck: paperBottleneck})
		}
	case "short": // section 6.3, figure 7
		g.Tasks = []string{"cb", "wic"}
		for _, c := range []int{6, 10} {
			g.Prompts = append(g.Prompts, Prompt{Method: "pt", Length: c}, Prompt{Method: "respt", Length: c}, Prompt{Method: "dpt", Length: c, Bottleneck: 2})
		}
	case "overparam": // section 6.4, figure 8
		g.Tasks = []string{"rte"}
		for _, b := range []int{10, 1000, 10000} {
			g.Prompts = append(g.Prompts, Prompt{Method: "dpt", Length: paperLength, Bottleneck: b})
		}
	case "rank": // section 2 and A.2, figures 3 and 9
		g.Tasks, g.Prompts, g.Seeds = []string{"cb", "rte", "wic"}, []Prompt{probe}, []uint64{1}
	case "custom":
		g.Prompts = []Prompt{dpt}
	default:
		return Grid{}, fmt.Errorf("preset %q, want one of %s", name, strings.Join(Presets, ", "))
	}
	return g, nil
}

// Embedded makes the paper's sizes those of the embedded model, whose texts are a few dozen words: a prompt of 20 tokens or more becomes a fifth as long.
func (g *Grid) Embedded() {
	for i := range g.Prompts {
		if p := &g.Prompts[i]; p.Length >= 20 {
			p.Length /= 5
		}
	}
}

// Restrict keeps the prompts of the named methods (respt-10 is residual prompt tuning with 10 tokens). A method that the preset lacks
// is added with the paper's sizes.
func (g *Grid) Restrict(methods []string) error {
	var kept []Prompt
	for _, name := range methods {
		want, ok := shapes[name]
		if !ok {
			return fmt.Errorf("method %q, want one of %s", name, strings.Join(Methods(), ", "))
		}
		n := len(kept)
		for _, p := range g.Prompts {
			if p.Method == want.Method && (p.Method != "respt" || g.Preset != "table1" || p.Length == want.Length) {
				kept = append(kept, p)
			}
		}
		if len(kept) == n {
			kept = append(kept, want)
		}
	}
	g.Prompts = kept
	return nil
}

// Methods are the names that Restrict takes.
func Methods() []string {
	var names []string
	for n := range shapes {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Lengths gives every method that has a prompt each of these lengths. Table 1's short residual prompt, respt-10, keeps its ten tokens.
func (g *Grid) Lengths(lengths []int) {
	g.vary(lengths, func(p *Prompt, c int) bool {
		if p.Method == "ft" || g.Preset == "table1" && *p == short {
			return false
		}
		p.Length = c
		return true
	})
}

// Bottlenecks gives dpt each of these bottlenecks.
func (g *Grid) Bottlenecks(bottlenecks []int) {
	g.vary(bottlenecks, func(p *Prompt, b int) bool { p.Bottleneck = b; return p.Method == "dpt" })
}

// Rate is a learning rate of a method, or of all that have none of their own.
type Rate struct {
	Method string // "": of all others
	LR     float64
}

// LearningRates gives every method each of its rates; one without keeps what all runs share.
func (g *Grid) LearningRates(rates []Rate) {
	of := map[string][]float64{}
	for _, r := range rates {
		of[r.Method] = append(of[r.Method], r.LR)
	}
	var all []Prompt
	for _, p := range g.Prompts {
		list, own := of[p.Method]
		if !own {
			list = of[""]
		}
		if len(list) == 0 {
			all = append(all, p)
		}
		for _, lr := range list {
			p.LR = lr
			all = append(all, p)
		}
	}
	g.Prompts = all
}

// vary replaces each prompt by what set makes of it for each value, where set says that the prompt has it; equal ones are kept once.
func (g *Grid) vary(values []int, set func(*Prompt, int) bool) {
	var all []Prompt
	for _, p := range g.Prompts {
		for _, v := range values {
			q := p
			if !set(&q, v) {
				q = p
			}
			if !slices.Contains(all, q) {
				all = append(all, q)
			}
		}
	}
	g.Prompts = all
}
