// Package report is part of the lab, not of the trainer: it renders the results of a sweep as
// Markdown and CSV tables in the layout of the paper's Tables 1 and 3, and as SVG and PNG figures
// in the layout of its figures 1 and 3 to 11.
package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/lab/sweep"
	"github.com/dptune/dpt/dataset"
)

// row is what a line of a table or of a figure stands for: a method with its sizes on one model,
// with one size of the training set. Its fields are those of sweep.Run.
type row struct {
	model      string
	shots      int
	method     string
	length     int
	bottleneck int
	lr         float64 // 0: that of all runs
}

// samples are the scores of one cell, one a seed, in the order of the results.
type samples []float64

// mean is the average; NaN without samples.
func (s samples) mean() float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	var sum float64
	for _, v := range s {
		sum += v
	}
	return sum / float64(len(s))
}

// deviation is the sample standard deviation, as in the paper's Table 3; NaN of fewer than two
// samples.
func (s samples) deviation() float64 {
	if len(s) < 2 {
		return math.NaN()
	}
	m := s.mean()
	var sum float64
	for _, v := range s {
		sum += (v - m) * (v - m)
	}
	return math.Sqrt(sum / float64(len(s)-1))
}

// min is the least sample; +Inf without samples.
func (s samples) min() float64 {
	v := math.Inf(1)
	for _, x := range s {
		v = math.Min(v, x)
	}
	return v
}

// max is the greatest sample; -Inf without samples.
func (s samples) max() float64 {
	v := math.Inf(-1)
	for _, x := range s {
		v = math.Max(v, x)
	}
	return v
}

// grid is the results by row and task. Only newGrid writes it.
type grid struct {
	rows       []row                      // by model, shots, method and sizes
	tasks      []string                   // in the paper's order
	cells      map[row]map[string]samples // by row and task
	parameters map[row]int64              // trainable ones
	results    []sweep.Result
}

// methodOrder lists the names of the methods in the order of the paper's tables.
var methodOrder = func() (names []string) {
	for _, m := range job.Methods() {
		names = append(names, m.Name)
	}
	return names
}()

func newGrid(results []sweep.Result) *grid {
	g := &grid{cells: map[row]map[string]samples{}, parameters: map[row]int64{}, results: results}
	models := map[string]int{} // the order in which the results name them
	for _, r := range results {
		k := rowOf(r)
		if _, ok := models[r.Model]; !ok {
			models[r.Model] = len(models)
		}
		if g.cells[k] == nil {
			g.cells[k] = map[string]samples{}
			g.rows = append(g.rows, k)
			g.parameters[k] = r.Parameters
		}
		g.cells[k][r.Task] = append(g.cells[k][r.Task], r.Headline())
		if !slices.Contains(g.tasks, r.Task) {
			g.tasks = append(g.tasks, r.Task)
		}
	}
	taskOrder := dataset.PaperOrder()
	slices.SortStableFunc(g.tasks, func(a, b string) int {
		return cmp.Compare(placeIn(taskOrder, a), placeIn(taskOrder, b))
	})
	slices.SortStableFunc(g.rows, func(a, b row) int {
		return cmp.Or(
			cmp.Compare(models[a.model], models[b.model]),
			cmp.Compare(a.shots, b.shots),
			cmp.Compare(placeIn(methodOrder, a.method), placeIn(methodOrder, b.method)),
			cmp.Compare(a.length, b.length),
			cmp.Compare(a.bottleneck, b.bottleneck),
			cmp.Compare(a.lr, b.lr),
		)
	})
	return g
}

func rowOf(r sweep.Result) row {
	return row{
		model:      r.Model,
		shots:      r.Shots,
		method:     r.Method,
		length:     r.PromptLength,
		bottleneck: r.Bottleneck,
		lr:         r.LR,
	}
}

// placeIn is the place of a name in an order; an unknown name is last.
func placeIn(order []string, name string) int {
	if i := slices.Index(order, name); i >= 0 {
		return i
	}
	return len(order)
}

// average is the row's mean over all tasks of the grid; NaN if it lacks one of them.
func (g *grid) average(k row) float64 {
	var sum float64
	for _, t := range g.tasks {
		sum += g.cells[k][t].mean()
	}
	return sum / float64(len(g.tasks))
}

// distinct lists the values of one property of the rows, sorted.
func distinct[T cmp.Ordered](rows []row, property func(row) T) []T {
	var list []T
	for _, r := range rows {
		if v := property(r); !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	slices.Sort(list)
	return list
}

// models lists the models in the order of the rows.
func (g *grid) models() []string {
	var list []string
	for _, r := range g.rows {
		if !slices.Contains(list, r.model) {
			list = append(list, r.model)
		}
	}
	return list
}

// methodName is the title of a method in tables and figures, or its name if this build does not
// know it.
func methodName(name string) string {
	m, err := job.LookupMethod(name)
	if err != nil {
		return name
	}
	return m.Title
}

// label names a row by its method and by those sizes in which the grid's rows of that method
// differ.
func (g *grid) label(k row) string {
	same := slices.DeleteFunc(slices.Clone(g.rows), func(r row) bool { return r.method != k.method })
	name := methodName(k.method)
	if len(distinct(same, func(r row) int { return r.length })) > 1 {
		name += fmt.Sprintf(", c = %d", k.length)
	}
	if len(distinct(same, func(r row) int { return r.bottleneck })) > 1 {
		name += fmt.Sprintf(", b = %d", k.bottleneck)
	}
	if len(distinct(same, func(r row) float64 { return r.lr })) > 1 {
		name += fmt.Sprintf(", lr = %g", k.lr)
	}
	if len(distinct(g.rows, func(r row) int { return r.shots })) > 1 {
		name += fmt.Sprintf(", %d shots", k.shots)
	}
	return name
}

// modelName is what a report calls a model.
func modelName(model string) string {
	if model == "" {
		return "embedded tiny T5"
	}
	return model
}

// countText is a number of parameters as the paper writes it: 11K, 60M.
func countText(n int64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.4gM", math.Round(float64(n)/1e5)/10)
	case n >= 1e3:
		return fmt.Sprintf("%dK", (n+500)/1000)
	}
	return fmt.Sprint(n)
}
