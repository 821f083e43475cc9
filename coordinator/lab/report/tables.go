package report

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/dptune/dpt/dataset"
)

// taskHeading is the heading of a task's column in the paper's tables; for a name that is no task,
// the name itself.
func taskHeading(task string) string {
	if t, err := dataset.Lookup(task); err == nil {
		return t.Heading()
	}
	return task
}

// taskTitle is the task's name as the paper prints it; for a name that is no task, the name itself.
func taskTitle(task string) string {
	if t, err := dataset.Lookup(task); err == nil {
		return t.Title()
	}
	return task
}

// means is Table 1: the mean over seeds of each task's first metric, and the mean over tasks. A
// cell with fewer seeds than the fullest one shows how many it has.
func (g *grid) means() string {
	most := g.seeds()
	outer := func(k row) []string { return []string{countText(g.parameters[k]), percent(g.average(k))} }
	return g.table([]string{"# Trainable", "Avg."}, outer, func(s samples) string {
		text := percent(s.mean())
		if len(s) > 0 && len(s) < most {
			text += fmt.Sprintf(" (%d of %d seeds)", len(s), most)
		}
		return text
	})
}

// deviations is Table 3: the standard deviation over seeds.
func (g *grid) deviations() string {
	return g.table(nil, nil, func(s samples) string { return percent(s.deviation()) })
}

// seeds is the number of runs in the fullest cell.
func (g *grid) seeds() int {
	most := 0
	for _, cells := range g.cells {
		for _, s := range cells {
			most = max(most, len(s))
		}
	}
	return most
}

// table renders the rows, grouped by model, with a column for each task. Unless ends is nil, it has
// the two headings of a column before the tasks and one after them, and outer gives their cells.
func (g *grid) table(ends []string, outer func(row) []string, cell func(samples) string) string {
	var b strings.Builder
	head := []string{"Model"}
	if ends != nil {
		head = append(head, ends[0])
	}
	for _, t := range g.tasks {
		head = append(head, taskHeading(t))
	}
	if ends != nil {
		head = append(head, ends[1])
	}
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(head)
	line(append([]string{"---"}, slices.Repeat([]string{"---:"}, len(head)-1)...))
	model := "\x00" // no model's name
	for _, k := range g.rows {
		if k.model != model {
			model = k.model
			cells := make([]string, len(head))
			cells[0] = "**" + modelName(model) + "**"
			line(cells)
		}
		cells := []string{g.label(k)}
		var last []string
		if outer != nil {
			o := outer(k)
			cells, last = append(cells, o[0]), o[1:]
		}
		for _, t := range g.tasks {
			cells = append(cells, cell(g.cells[k][t]))
		}
		line(append(cells, last...))
	}
	return b.String()
}

// percent is a score or a deviation as the tables show it; a dash for NaN.
func percent(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// csv is a line for each cell, and one for each row's average over several tasks, for other
// programs.
func (g *grid) csv() ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	records := [][]string{{
		"model", "method", "prompt_length", "bottleneck", "shots", "lr", "trainable_parameters",
		"task", "metric", "seeds", "mean", "standard_deviation", "min", "max",
	}}
	for _, k := range g.rows {
		named := []string{
			k.model,
			k.method,
			strconv.Itoa(k.length),
			strconv.Itoa(k.bottleneck),
			strconv.Itoa(k.shots),
			rateText(k),
			strconv.FormatInt(g.parameters[k], 10),
		}
		for _, t := range g.tasks {
			s := g.cells[k][t]
			if len(s) == 0 {
				continue
			}
			records = append(records, slices.Concat(named, []string{
				t,
				g.metric(t),
				strconv.Itoa(len(s)),
				exact(s.mean()),
				exact(s.deviation()),
				exact(s.min()),
				exact(s.max()),
			}))
		}
		if len(g.tasks) > 1 {
			average := []string{"average", "", "", exact(g.average(k)), "", "", ""}
			records = append(records, slices.Concat(named, average))
		}
	}
	if err := w.WriteAll(records); err != nil {
		return nil, fmt.Errorf("tables as CSV: %w", err)
	}
	return b.Bytes(), nil
}

// rateText is the row's own learning rate; empty if it is that of all runs.
func rateText(k row) string {
	if k.lr == 0 {
		return ""
	}
	return exact(k.lr)
}

// metric is the name of the task's first metric.
func (g *grid) metric(task string) string {
	for _, r := range g.results {
		if r.Task == task && len(r.Metrics) > 0 {
			return r.Metrics[0].Name
		}
	}
	return ""
}

// exact is a number for other programs; empty for NaN.
func exact(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
