// Package sweep is part of the lab, not of the trainer: it describes the paper's experiments as
// grids of runs, submits the runs to a coordinator's queue, and keeps their results. Package report
// renders them.
//
// A sweep lives in a directory with two files: sweep.json, the Grid, and results.jsonl, a Result a
// line. Which runs are due is a pure function of the two, so that a sweep can be stopped anywhere
// and goes on where it was.
package sweep

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/model/prompt"
	"github.com/dptune/dpt/model/tiny"
)

// Run is one training run of a grid. Its fields are what distinguishes it from the grid's other
// runs.
type Run struct {
	Model        string  `json:"model"`                   // as the user named it; "" is the embedded model
	Task         string  `json:"task"`                    // canonical name
	Method       string  `json:"method"`                  // dpt, pt, respt, svd or ft
	PromptLength int     `json:"prompt_length,omitempty"` // virtual tokens; 0: none, as for ft
	Bottleneck   int     `json:"bottleneck,omitempty"`    // 0: the method's default, or none
	Shots        int     `json:"shots,omitempty"`         // training examples; 0: all
	Seed         uint64  `json:"seed"`
	LR           float64 `json:"lr,omitempty"`   // learning rate; 0: that of Grid.Settings
	Rung         int     `json:"rung,omitempty"` // of Halving, with a part of the budget; 0: the whole budget
}

// Key names the run within a sweep, in characters that a file's name may have.
func (r Run) Key() string {
	parts := []string{ModelKey(r.Model), r.Task, r.Method}
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

// ModelKey names a model by the last element of its path, in characters that a file's name may
// have.
func ModelKey(model string) string {
	name := strings.TrimRight(model, "/")
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		name = name[i+1:]
	}
	if name == "" {
		return tiny.Name
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_':
			return r
		}
		return '_'
	}, name)
}

// Prompt is a method with the sizes that an experiment gives it.
type Prompt struct {
	Method     string  `json:"method"`
	Length     int     `json:"length,omitempty"`     // virtual tokens; 0: none, as for ft
	Bottleneck int     `json:"bottleneck,omitempty"` // 0: the method's default, or none
	LR         float64 `json:"lr,omitempty"`         // learning rate; 0: that of Grid.Settings
}

// Grid is every combination of its lists, with the settings that all runs share.
type Grid struct {
	Preset  string   `json:"preset"` // one of Presets
	Models  []string `json:"models"`
	Tasks   []string `json:"tasks"`
	Prompts []Prompt `json:"prompts"`
	Shots   []int    `json:"shots"` // training examples; 0: all
	Seeds   []uint64 `json:"seeds"`

	Halving  *Halving     `json:"halving,omitempty"` // nil: every run has the whole budget
	Settings job.Settings `json:"settings"`          // of all runs; the fields of a Run are zero
}

// Runs lists the grid's runs with the whole budget. Seeds are innermost, so that a row of a table
// fills up before the next one begins.
func (g Grid) Runs() []Run {
	var runs []Run
	for _, m := range g.Models {
		for _, k := range g.Shots {
			for _, t := range g.Tasks {
				for _, p := range g.Prompts {
					for _, s := range g.Seeds {
						runs = append(runs, p.run(Run{Model: m, Task: t, Shots: k, Seed: s}))
					}
				}
			}
		}
	}
	return runs
}

// run is the run in which p is trained on what r names.
func (p Prompt) run(r Run) Run {
	r.Method, r.PromptLength, r.Bottleneck, r.LR = p.Method, p.Length, p.Bottleneck, p.LR
	return r
}

// Validate checks that the grid has runs, that no two have the same key, and that its halving is
// possible.
func (g Grid) Validate() error {
	runs := g.Runs()
	if len(runs) == 0 {
		return fmt.Errorf("preset %s: %d models, %d tasks, %d methods, %d sizes of the training set and %d seeds,"+
			" want at least one of each",
			g.Preset, len(g.Models), len(g.Tasks), len(g.Prompts), len(g.Shots), len(g.Seeds))
	}
	seen := map[string]Run{}
	for _, r := range runs {
		if other, ok := seen[r.Key()]; ok {
			return fmt.Errorf("preset %s: %+v and %+v are both called %s, want every run once",
				g.Preset, other, r, r.Key())
		}
		seen[r.Key()] = r
	}
	return g.validateHalving()
}

const (
	paperLength     = 100
	paperBottleneck = 10
)

// The paper's prompts. Residual prompt tuning has the default bottleneck of its own paper, 400.
var (
	ft         = Prompt{Method: job.FineTuning}
	pt         = Prompt{Method: prompt.PT, Length: paperLength}
	respt      = Prompt{Method: prompt.ResPT, Length: paperLength}
	shortRespt = Prompt{Method: prompt.ResPT, Length: 10} // of Table 4
	dpt        = Prompt{Method: prompt.DPT, Length: paperLength, Bottleneck: paperBottleneck}
	probe      = Prompt{Method: prompt.SVD, Length: paperLength}
)

// promptsByName maps the names that RestrictMethods takes to prompts: every method with the paper's
// sizes, and the short prompt of Table 4.
func promptsByName() map[string]Prompt {
	named := map[string]Prompt{"respt-10": shortRespt}
	for _, m := range job.Methods() {
		p := Prompt{Method: m.Name}
		if m.Prompt != nil {
			p.Length = paperLength
		}
		named[m.Name] = p
	}
	named[prompt.DPT] = dpt
	return named
}

// Presets are the names of the experiments in the paper's order, and custom, for what the user
// lists.
var Presets = []string{"table1", "fewshot", "bottleneck", "length", "short", "overparam", "rank", "custom"}

// Preset is the grid of one of the paper's experiments for the given models: the paper's tasks,
// methods and sizes, with three seeds.
func Preset(name string, models []string) (Grid, error) {
	g := Grid{
		Preset: name, Models: models, Tasks: dataset.PaperOrder(), Shots: []int{0}, Seeds: []uint64{1, 2, 3},
	}
	fourTasks := []string{"wic", "cb", "rte", "copa"}
	// everyMethod adds pt, respt and dpt with a prompt length and a bottleneck of dpt.
	everyMethod := func(length, bottleneck int) {
		g.Prompts = append(g.Prompts,
			Prompt{Method: prompt.PT, Length: length},
			Prompt{Method: prompt.ResPT, Length: length},
			Prompt{Method: prompt.DPT, Length: length, Bottleneck: bottleneck})
	}
	switch name {
	case "table1": // Tables 1, 3 and 4
		g.Prompts = []Prompt{ft, pt, shortRespt, respt, dpt}
	case "fewshot": // section 5.2, figure 4
		g.Shots, g.Prompts = []int{8, 16, 32}, []Prompt{pt, respt, dpt}
	case "bottleneck": // section 6.1, figures 5 and 10
		g.Tasks, g.Prompts = fourTasks, []Prompt{pt, respt}
		for _, b := range []int{4, 6, 8, 10, 12, 14} {
			g.Prompts = append(g.Prompts, Prompt{Method: prompt.DPT, Length: paperLength, Bottleneck: b})
		}
	case "length": // section 6.2, figures 6 and 11
		g.Tasks = fourTasks
		for _, c := range []int{20, 100, 200} {
			everyMethod(c, paperBottleneck)
		}
	case "short": // section 6.3, figure 7
		g.Tasks = []string{"cb", "wic"}
		for _, c := range []int{6, 10} {
			everyMethod(c, 2)
		}
	case "overparam": // section 6.4, figure 8
		g.Tasks = []string{"rte"}
		for _, b := range []int{10, 1000, 10000} {
			g.Prompts = append(g.Prompts, Prompt{Method: prompt.DPT, Length: paperLength, Bottleneck: b})
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

// ShortenPrompts makes prompts of 20 tokens or more a fifth as long. The paper's lengths are too
// long for the embedded model, whose texts are a few dozen words.
func (g *Grid) ShortenPrompts() {
	for i := range g.Prompts {
		if p := &g.Prompts[i]; p.Length >= 20 {
			p.Length /= 5
		}
	}
}

// RestrictMethods keeps the prompts of the named methods (respt-10 is residual prompt tuning with
// 10 tokens) and adds those of methods that the preset lacks, with the paper's sizes.
func (g *Grid) RestrictMethods(methods []string) error {
	var kept []Prompt
	known := promptsByName()
	for _, name := range methods {
		want, ok := known[name]
		if !ok {
			return fmt.Errorf("method %q, want one of %s", name, strings.Join(Methods(), ", "))
		}
		n := len(kept)
		for _, p := range g.Prompts {
			if p.Method == want.Method &&
				(p.Method != prompt.ResPT || g.Preset != "table1" || p.Length == want.Length) {
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

// Methods are the names that RestrictMethods takes, sorted.
func Methods() []string { return slices.Sorted(maps.Keys(promptsByName())) }

// VaryLengths gives every method that has a prompt each of these lengths. Table 1's short residual
// prompt, respt-10, keeps its ten tokens.
func (g *Grid) VaryLengths(lengths []int) {
	g.varyPrompts(lengths, func(p *Prompt, c int) bool {
		if p.Length == 0 || g.Preset == "table1" && *p == shortRespt {
			return false
		}
		p.Length = c
		return true
	})
}

// VaryBottlenecks gives dpt each of these bottlenecks.
func (g *Grid) VaryBottlenecks(bottlenecks []int) {
	g.varyPrompts(bottlenecks, func(p *Prompt, b int) bool { p.Bottleneck = b; return p.Method == prompt.DPT })
}

// Rate is a learning rate of a method, or of all methods that have no rate of their own.
type Rate struct {
	Method string // "": all methods without a rate of their own
	LR     float64
}

// VaryLearningRates gives every method each of its rates. A method without any keeps that of
// g.Settings.
func (g *Grid) VaryLearningRates(rates []Rate) {
	byMethod := map[string][]float64{}
	for _, r := range rates {
		byMethod[r.Method] = append(byMethod[r.Method], r.LR)
	}
	var all []Prompt
	for _, p := range g.Prompts {
		list, own := byMethod[p.Method]
		if !own {
			list = byMethod[""]
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

// varyPrompts replaces each prompt by a copy for each value, which set gives it. If set returns
// false, the prompt has no such value and stays as it is. Equal prompts are kept once.
func (g *Grid) varyPrompts(values []int, set func(*Prompt, int) bool) {
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
