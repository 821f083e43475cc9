package report

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// columns are what Table 1 heads its columns with.
var columns = map[string]string{
	"wsc": "WSC Acc.", "wic": "WiC Acc.", "boolq": "BoolQ Acc.", "cb": "CB Acc.", "copa": "COPA Acc.", "multirc": "MultiRC F1", "record": "ReCoRD F1", "rte": "RTE Acc.",
}

func column(task string) string {
	if c := columns[task]; c != "" {
		return c
	}
	return task
}

// means is Table 1: the mean over seeds of each task's first metric, and the mean over tasks. A cell with fewer seeds than the fullest one
// says how many it has.
func (g *grid) means() string {
	most := g.seeds()
	return g.table([]string{"# Trainable", "Avg."}, func(k row) []string {
		return []string{count(g.parameters[k]), number(g.average(k))}
	}, func(s samples) string {
		text := number(s.mean())
		if len(s) > 0 && len(s) < most {
			text += fmt.Sprintf(" (%d of %d seeds)", len(s), most)
		}
		return text
	})
}

// deviations is Table 3: the standard deviation over seeds.
func (g *grid) deviations() string {
	return g.table(nil, nil, func(s samples) string { return number(s.deviation()) })
}

// seeds is how many runs the fullest cell has.
func (g *grid) seeds() int {
	most := 0
	for _, cells := range g.cells {
		for _, s := range cells {
			most = max(most, len(s))
		}
	}
	return most
}

// table renders rows by model; ends are the headings of the columns before and after the tasks, which outer fills.
func (g *grid) table(ends []string, outer func(row) []string, cell func(samples) string) string {
	var b strings.Builder
	head := []string{"Model"}
	if ends != nil {
		head = append(head, ends[0])
	}
	for _, t := range g.tasks {
		head = append(head, column(t))
	}
	if ends != nil {
		head = append(head, ends[1])
	}
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(head)
	line(append([]string{"---"}, strings.Split(strings.Repeat("---: ", len(head)-1), " ")[:len(head)-1]...))
	model := "\x00"
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

func number(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// csv is every cell as a line: what a spreadsheet or another program reads.
func (g *grid) csv() ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	records := [][]string{{"model", "method", "prompt_length", "bottleneck", "shots", "lr", "trainable_parameters", "task", "metric", "seeds", "mean", "standard_deviation", "min", "max"}}
	for _, k := range g.rows {
		for _, t := range g.tasks {
			s := g.cells[k][t]
			if len(s) == 0 {
				continue
			}
			records = append(records, []string{k.model, k.method, strconv.Itoa(k.length), strconv.Itoa(k.bottleneck), strconv.Itoa(k.shots), rateOf(k), strconv.FormatInt(g.parameters[k], 10),
				t, g.metric(t), strconv.Itoa(len(s)), exact(s.mean()), exact(s.deviation()), exact(minOf(s)), exact(maxOf(s))})
		}
		if len(g.tasks) > 1 {
			records = append(records, []string{k.model, k.method, strconv.Itoa(k.length), strconv.Itoa(k.bottleneck), strconv.Itoa(k.shots), rateOf(k), strconv.FormatInt(g.parameters[k], 10),
				"average", "", "", exact(g.average(k)), "", "", ""})
		}
	}
	if err := w.WriteAll(records); err != nil {
		return nil, fmt.Errorf("tables as CSV: %w", err)
	}
	return b.Bytes(), nil
}

// rateOf is the row's own learning rate; empty where it is that of all runs.
func rateOf(k row) string {
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

// exact is a number for a program: empty where there is none.
func exact(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

func minOf(s samples) float64 {
	v := math.Inf(1)
	for _, x := range s {
		v = math.Min(v, x)
	}
	return v
}

func maxOf(s samples) float64 {
	v := math.Inf(-1)
	for _, x := range s {
		v = math.Max(v, x)
	}
	return v
}
