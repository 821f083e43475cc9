package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/dptune/dpt/coordinator/lab/sweep"
	"github.com/dptune/dpt/model/prompt"
)

// figure is a grid of panels, as the paper's figures are.
type figure struct {
	name    string // of its files, without the suffix
	caption string
	panels  [][]panel // by line
}

// panel is one plot.
type panel struct {
	title, x, y string // of the panel and of its axes
	series      []series
	ticks       []float64 // of the x axis; nil: chosen from its range
	log         bool      // the x axis is logarithmic
	names       []string  // of categories 0, 1, ... on the x axis, over which the series are bars; nil: lines
}

// series is one line, or one colour of bars.
type series struct {
	name   string // in the legend
	color  int    // index into the palette
	points []point
	dashed bool // a line for a value that does not depend on x
}

// point has a mean and a range over seeds; low and high equal y if there is one seed.
type point struct{ x, y, low, high float64 }

// single is a point without a range.
func single(x, y float64) point { return point{x: x, y: y, low: y, high: y} }

// figures are those of the paper's experiment, for each model of the results.
func (g *grid) figures(preset string) []figure {
	var list []figure
	for _, model := range g.models() {
		var f *figure
		switch preset {
		case "table1":
			f = g.averageFigure(model)
		case "fewshot":
			f = g.fewShotFigure(model)
		case "bottleneck":
			f = g.bottleneckFigure(model)
		case "length":
			f = g.lengthFigure(model)
		case "short":
			f = g.shortPromptFigure(model)
		case "overparam":
			f = g.overparametrizedFigure(model)
		case "rank":
			f = g.rankFigure(model)
		}
		if f != nil {
			f.name = fmt.Sprintf("%s-%s", f.name, sweep.ModelKey(model))
			list = append(list, *f)
		}
	}
	return list
}

// rowsOf are the model's rows, in the tables' order.
func (g *grid) rowsOf(model string) []row {
	return slices.DeleteFunc(slices.Clone(g.rows), func(r row) bool { return r.model != model })
}

// averageFigure is figure 1: the average over the tasks, a bar for each method; nil if no row has
// all tasks.
func (g *grid) averageFigure(model string) *figure {
	p := panel{title: modelName(model), y: "average score", names: []string{""}}
	for _, k := range g.rowsOf(model) {
		if v := g.average(k); !math.IsNaN(v) {
			p.series = append(p.series, series{name: g.label(k), color: len(p.series), points: []point{single(0, v)}})
		}
	}
	if len(p.series) == 0 {
		return nil
	}
	return &figure{
		name:    "figure1-average",
		caption: "Average over all tasks (as the paper's figure 1).",
		panels:  [][]panel{{p}},
	}
}

// linesByMethod makes a line for each method over the property x of its rows. value gives the point
// of a row, which linesByMethod places at x, and false if the row has none.
func linesByMethod(rows []row, x func(row) int, value func(row) (point, bool)) (list []series) {
	for i, method := range methodOrder {
		s := series{name: methodName(method), color: i}
		for _, k := range rows {
			if k.method != method {
				continue
			}
			if p, ok := value(k); ok {
				p.x = float64(x(k))
				s.points = append(s.points, p)
			}
		}
		slices.SortStableFunc(s.points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
		if len(s.points) > 0 {
			list = append(list, s)
		}
	}
	return list
}

// cellOf gives the points of a task's cells, for linesByMethod.
func (g *grid) cellOf(task string) func(row) (point, bool) {
	return func(k row) (point, bool) {
		s := g.cells[k][task]
		return point{y: s.mean(), low: s.min(), high: s.max()}, len(s) > 0
	}
}

// floats are integers as the values of an axis.
func floats(list []int) []float64 {
	out := make([]float64, len(list))
	for i, v := range list {
		out[i] = float64(v)
	}
	return out
}

// taskPanels makes a panel for each task and leaves out those without series.
func (g *grid) taskPanels(of func(task string) panel) (list []panel) {
	for _, t := range g.tasks {
		if p := of(t); len(p.series) > 0 {
			list = append(list, p)
		}
	}
	return list
}

// inLines puts width panels into each line.
func inLines(width int, panels []panel) [][]panel { return slices.Collect(slices.Chunk(panels, width)) }

// fewShotFigure is figure 4: scores over the size of the training set, first the average over the
// tasks.
func (g *grid) fewShotFigure(model string) *figure {
	rows := g.rowsOf(model)
	shots := func(k row) int { return k.shots }
	ticks := floats(distinct(rows, shots))
	panelOf := func(title string, value func(row) (point, bool)) panel {
		return panel{
			title:  title,
			x:      "training examples",
			y:      "score",
			ticks:  ticks,
			series: linesByMethod(rows, shots, value),
		}
	}
	var panels []panel
	average := panelOf("average", func(k row) (point, bool) {
		v := g.average(k)
		return single(0, v), !math.IsNaN(v)
	})
	if len(average.series) > 0 && len(g.tasks) > 1 {
		panels = append(panels, average)
	}
	tasks := g.taskPanels(func(t string) panel { return panelOf(taskHeading(t), g.cellOf(t)) })
	return &figure{
		name:    "figure4-fewshot",
		caption: fmt.Sprintf("Few-shot setting, %s (as the paper's figure 4).", modelName(model)),
		panels:  inLines(3, append(panels, tasks...)),
	}
}

// bottleneckFigure is figures 5 and 10: scores of DPT over its bottleneck, those of the other
// methods as levels.
func (g *grid) bottleneckFigure(model string) *figure {
	rows := g.rowsOf(model)
	swept := slices.DeleteFunc(slices.Clone(rows), func(k row) bool { return k.method != prompt.DPT })
	bottleneck := func(k row) int { return k.bottleneck }
	ticks := floats(distinct(swept, bottleneck))
	panels := g.taskPanels(func(t string) panel {
		p := panel{
			title:  taskHeading(t),
			x:      "bottleneck b",
			y:      "score",
			ticks:  ticks,
			series: linesByMethod(swept, bottleneck, g.cellOf(t)),
		}
		for _, k := range rows {
			s := g.cells[k][t]
			if k.method == prompt.DPT || len(s) == 0 || len(ticks) == 0 {
				continue
			}
			p.series = append(p.series, series{
				name:   methodName(k.method),
				color:  placeIn(methodOrder, k.method),
				dashed: true,
				points: []point{single(ticks[0], s.mean()), single(ticks[len(ticks)-1], s.mean())},
			})
		}
		return p
	})
	return &figure{
		name: "figure5-bottleneck",
		caption: fmt.Sprintf("Sensitivity to the bottleneck b, %s (as the paper's figures 5 and 10).",
			modelName(model)),
		panels: inLines(2, panels),
	}
}

// lengthFigure is figures 6 and 11: scores over the prompt's length.
func (g *grid) lengthFigure(model string) *figure {
	rows := g.rowsOf(model)
	length := func(k row) int { return k.length }
	ticks := floats(distinct(rows, length))
	panels := g.taskPanels(func(t string) panel {
		return panel{
			title:  taskHeading(t),
			x:      "prompt length c",
			y:      "score",
			ticks:  ticks,
			series: linesByMethod(rows, length, g.cellOf(t)),
		}
	})
	return &figure{
		name: "figure6-length",
		caption: fmt.Sprintf("Effect of the prompt's length c, %s (as the paper's figures 6 and 11).",
			modelName(model)),
		panels: inLines(2, panels),
	}
}

// shortPromptFigure is figure 7: scores of short prompts and a small bottleneck, bars by method.
func (g *grid) shortPromptFigure(model string) *figure {
	rows := g.rowsOf(model)
	lengths := distinct(rows, func(k row) int { return k.length })
	var names []string
	for _, c := range lengths {
		names = append(names, fmt.Sprintf("c = %d", c))
	}
	category := func(k row) int { return slices.Index(lengths, k.length) }
	panels := g.taskPanels(func(t string) panel {
		return panel{
			title:  taskHeading(t),
			y:      "score",
			names:  names,
			series: linesByMethod(rows, category, g.cellOf(t)),
		}
	})
	return &figure{
		name:    "figure7-short",
		caption: fmt.Sprintf("Short prompts and a bottleneck of 2, %s (as the paper's figure 7).", modelName(model)),
		panels:  inLines(2, panels),
	}
}

// overparametrizedFigure is figure 8: scores of large bottlenecks, with their range over seeds.
func (g *grid) overparametrizedFigure(model string) *figure {
	rows := g.rowsOf(model)
	bottleneck := func(k row) int { return k.bottleneck }
	ticks := floats(distinct(rows, bottleneck))
	panels := g.taskPanels(func(t string) panel {
		return panel{
			title:  taskHeading(t),
			x:      "bottleneck b",
			y:      "score",
			ticks:  ticks,
			log:    true,
			series: linesByMethod(rows, bottleneck, g.cellOf(t)),
		}
	})
	return &figure{
		name: "figure8-overparam",
		caption: fmt.Sprintf("Large bottlenecks, %s: average, least and greatest score over seeds"+
			" (as the paper's figure 8).", modelName(model)),
		panels: inLines(2, panels),
	}
}

// rankFigure is figures 3 and 9: in the first line the positive and negative entries of Σ over the
// steps, in the second the rank of the prompt; nil without results of the rank probe.
func (g *grid) rankFigure(model string) *figure {
	var entries, ranks []panel
	for _, t := range g.tasks {
		for _, r := range g.results {
			if r.Model != model || r.Task != t {
				continue
			}
			positive := series{name: "positive", color: 3}
			negative := series{name: "negative", color: 1}
			rank := series{name: "rank", color: 2}
			for _, e := range r.Evaluations {
				if e.Probe == nil {
					continue
				}
				step := float64(e.Step)
				positive.points = append(positive.points, single(step, float64(e.Probe.Positive)))
				negative.points = append(negative.points, single(step, float64(e.Probe.Negative)))
				rank.points = append(rank.points, single(step, float64(e.Probe.Rank)))
			}
			if len(rank.points) == 0 {
				continue // a method that is not probed
			}
			entries = append(entries, panel{
				title:  taskTitle(t),
				x:      "step",
				y:      "entries of Σ",
				series: []series{positive, negative},
			})
			ranks = append(ranks, panel{x: "step", y: "rank of P", series: []series{rank}})
			break // one seed, as the paper
		}
	}
	if len(entries) == 0 {
		return nil
	}
	return &figure{
		name: "figure9-rank",
		caption: fmt.Sprintf("The rank probe, %s: entries of Σ, and the rank of the prompt"+
			" (as the paper's figures 3 and 9).", modelName(model)),
		panels: [][]panel{entries, ranks},
	}
}
