package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/dptune/dpt/coordinator/lab/sweep"
)

// figure is a grid of panels, as the paper's figures are.
type figure struct {
	name    string // of its files
	caption string
	panels  [][]panel
}

// panel is one plot.
type panel struct {
	title, x, y string
	series      []series
	ticks       []float64 // of the x axis; nil: chosen from the range
	log         bool      // the x axis
	names       []string  // of categories 0, 1, ... on the x axis: the series are bars
}

// series is one line, or one colour of bars.
type series struct {
	name   string
	color  int // index into the palette: one for each method
	points []point
	dashed bool // a value that does not depend on x
}

// point has a mean and a range over seeds; low and high equal y where there is one seed.
type point struct{ x, y, low, high float64 }

func pointOf(x float64, s samples) point {
	return point{x: x, y: s.mean(), low: minOf(s), high: maxOf(s)}
}

// figures are those that the preset has in the paper, for each model of the results.
func (g *grid) figures(preset string) []figure {
	var figs []figure
	for _, model := range g.models() {
		var f *figure
		switch preset {
		case "table1":
			f = g.averages(model)
		case "fewshot":
			f = g.fewShot(model)
		case "bottleneck":
			f = g.bottlenecks(model)
		case "length":
			f = g.lengths(model)
		case "short":
			f = g.shortPrompts(model)
		case "overparam":
			f = g.overparametrized(model)
		case "rank":
			f = g.ranks(model)
		}
		if f != nil {
			f.name = fmt.Sprintf("%s-%s", f.name, sweep.ModelKey(model))
			figs = append(figs, *f)
		}
	}
	return figs
}

// of are the model's rows, in the tables' order.
func (g *grid) of(model string) []row {
	return slices.DeleteFunc(slices.Clone(g.rows), func(r row) bool { return r.model != model })
}

// averages is figure 1: the average over the tasks, a bar for each method.
func (g *grid) averages(model string) *figure {
	p := panel{title: modelName(model), y: "average score", names: []string{""}}
	for _, k := range g.of(model) {
		if v := g.average(k); !math.IsNaN(v) {
			p.series = append(p.series, series{name: g.label(k), color: len(p.series), points: []point{{y: v, low: v, high: v}}})
		}
	}
	if len(p.series) == 0 {
		return nil
	}
	return &figure{name: "figure1-average", caption: "Average over all tasks (as the paper's figure 1).", panels: [][]panel{{p}}}
}

// lines makes a line for each method over the property x of the model's rows. A row without a value of the task has no point.
func (g *grid) lines(rows []row, x func(row) int, value func(row) (point, bool)) (list []series) {
	for _, method := range methodOrder {
		s := series{name: methodName(method), color: rank(methodOrder, method)}
		for _, k := range rows {
			if k.method != method {
				continue
			}
			if p, ok := value(k); ok {
				p.x = float64(x(k))
				s.points = append(s.points, p)
			}
		}
		slices.SortFunc(s.points, func(a, b point) int { return int(math.Copysign(1, a.x-b.x)) })
		if len(s.points) > 0 {
			list = append(list, s)
		}
	}
	return list
}

// cell is the value of a task, as lines wants it.
func (g *grid) cell(task string) func(row) (point, bool) {
	return func(k row) (point, bool) {
		s := g.cells[k][task]
		return pointOf(0, s), len(s) > 0
	}
}

func floats(list []int) []float64 {
	out := make([]float64, len(list))
	for i, v := range list {
		out[i] = float64(v)
	}
	return out
}

// panels makes one panel for each task, `wide` in a line.
func (g *grid) panels(wide int, make func(task string) panel) [][]panel {
	var all []panel
	for _, t := range g.tasks {
		if p := make(t); len(p.series) > 0 {
			all = append(all, p)
		}
	}
	return slices.Collect(slices.Chunk(all, wide))
}

// fewShot is figure 4: scores over the size of the training set, first the average over the tasks.
func (g *grid) fewShot(model string) *figure {
	rows := g.of(model)
	shots := func(k row) int { return k.shots }
	ticks := floats(distinct(rows, shots))
	make := func(title string, value func(row) (point, bool)) panel {
		return panel{title: title, x: "training examples", y: "score", ticks: ticks, series: g.lines(rows, shots, value)}
	}
	all := []panel{make("average", func(k row) (point, bool) {
		v := g.average(k)
		return point{y: v, low: v, high: v}, !math.IsNaN(v)
	})}
	if len(all[0].series) == 0 || len(g.tasks) == 1 {
		all = nil
	}
	for _, line := range g.panels(1, func(t string) panel { return make(column(t), g.cell(t)) }) {
		all = append(all, line...)
	}
	return &figure{name: "figure4-fewshot", caption: fmt.Sprintf("Few-shot setting, %s (as the paper's figure 4).", modelName(model)), panels: slices.Collect(slices.Chunk(all, 3))}
}

// bottlenecks is figures 5 and 10: DPT over its bottleneck, the other methods as levels.
func (g *grid) bottlenecks(model string) *figure {
	rows := g.of(model)
	swept := slices.DeleteFunc(slices.Clone(rows), func(k row) bool { return k.method != "dpt" })
	b := func(k row) int { return k.bottleneck }
	ticks := floats(distinct(swept, b))
	return &figure{name: "figure5-bottleneck", caption: fmt.Sprintf("Sensitivity to the bottleneck b, %s (as the paper's figures 5 and 10).", modelName(model)),
		panels: g.panels(2, func(t string) panel {
			p := panel{title: column(t), x: "bottleneck b", y: "score", ticks: ticks, series: g.lines(swept, b, g.cell(t))}
			for _, k := range rows {
				if s := g.cells[k][t]; k.method != "dpt" && len(s) > 0 && len(ticks) > 0 {
					m := s.mean()
					at := func(x float64) point { return point{x, m, m, m} }
					p.series = append(p.series, series{name: methodName(k.method), color: rank(methodOrder, k.method), dashed: true,
						points: []point{at(ticks[0]), at(ticks[len(ticks)-1])}})
				}
			}
			return p
		})}
}

// lengths is figures 6 and 11: scores over the prompt's length.
func (g *grid) lengths(model string) *figure {
	rows := g.of(model)
	c := func(k row) int { return k.length }
	ticks := floats(distinct(rows, c))
	return &figure{name: "figure6-length", caption: fmt.Sprintf("Effect of the prompt's length c, %s (as the paper's figures 6 and 11).", modelName(model)),
		panels: g.panels(2, func(t string) panel {
			return panel{title: column(t), x: "prompt length c", y: "score", ticks: ticks, series: g.lines(rows, c, g.cell(t))}
		})}
}

// shortPrompts is figure 7: short prompts and a small bottleneck, bars by method.
func (g *grid) shortPrompts(model string) *figure {
	rows := g.of(model)
	lengths := distinct(rows, func(k row) int { return k.length })
	var names []string
	for _, c := range lengths {
		names = append(names, fmt.Sprintf("c = %d", c))
	}
	return &figure{name: "figure7-short", caption: fmt.Sprintf("Short prompts and a bottleneck of 2, %s (as the paper's figure 7).", modelName(model)),
		panels: g.panels(2, func(t string) panel {
			return panel{title: column(t), y: "score", names: names, series: g.lines(rows, func(k row) int { return slices.Index(lengths, k.length) }, g.cell(t))}
		})}
}

// overparametrized is figure 8: large bottlenecks, with the average, the least and the greatest score over seeds.
func (g *grid) overparametrized(model string) *figure {
	rows := g.of(model)
	b := func(k row) int { return k.bottleneck }
	ticks := floats(distinct(rows, b))
	return &figure{name: "figure8-overparam", caption: fmt.Sprintf("Large bottlenecks, %s: average, least and greatest score over seeds (as the paper's figure 8).", modelName(model)),
		panels: g.panels(2, func(t string) panel {
			return panel{title: column(t), x: "bottleneck b", y: "score", ticks: ticks, log: true, series: g.lines(rows, b, g.cell(t))}
		})}
}

// ranks is figures 3 and 9: above, the positive and negative entries of Σ over the steps, below, the rank of the prompt.
func (g *grid) ranks(model string) *figure {
	f := &figure{name: "figure9-rank", caption: fmt.Sprintf("The rank probe, %s: entries of Σ, and the rank of the prompt (as the paper's figures 3 and 9).", modelName(model)),
		panels: make([][]panel, 2)}
	for _, t := range g.tasks {
		for _, r := range g.results {
			if r.Model != model || r.Task != t || r.Method != "svd" {
				continue
			}
			positive, negative, rank := series{name: "positive", color: 3}, series{name: "negative", color: 1}, series{name: "rank", color: 2}
			for _, e := range r.Evaluations {
				if e.Probe == nil {
					continue
				}
				at := func(v int) point { return point{float64(e.Step), float64(v), float64(v), float64(v)} }
				positive.points = append(positive.points, at(e.Probe.Positive))
				negative.points = append(negative.points, at(e.Probe.Negative))
				rank.points = append(rank.points, at(e.Probe.Rank))
			}
			if len(rank.points) == 0 {
				continue
			}
			f.panels[0] = append(f.panels[0], panel{title: strings.Fields(column(t))[0], x: "step", y: "entries of Σ", series: []series{positive, negative}})
			f.panels[1] = append(f.panels[1], panel{x: "step", y: "rank of P", series: []series{rank}})
			break // one seed, as the paper
		}
	}
	if len(f.panels[0]) == 0 {
		return nil
	}
	return f
}
