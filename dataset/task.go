package dataset

import "slices"

// Task is one of SuperGLUE's eight tasks. The zero Task is none of them; Lookup returns one. Tasks
// compare with ==.
type Task struct {
	spec *spec
}

// spec is all that tells one task from another.
type spec struct {
	name    string       // lower case, as flags give it
	title   string       // as the paper and reports print it, and as SuperGLUE names its directory
	classes []string     // T5's label words in the order of SuperGLUE's class numbers; nil: targets are free text
	metrics []metricName // in the order in which score fills them; the first stands in the paper's tables

	// parse adds the examples of one line of a file to b. A fault of the line is left in o.
	parse func(b *builder, o object)
	// score compares predictions, one for each example of s.Eval, with the labels.
	score func(s *Split, predictions []string) []float64
	// guesses gives the predictions of each constant guess, for Majority; nil: the task has none.
	guesses func(s *Split) [][]string
}

// metricName is what a metric is called in Metrics and by the paper's tables.
type metricName struct{ name, heading string }

// accuracy is the one metric of most tasks.
var accuracy = metricName{"accuracy", "Acc."}

// Name is the task's name in lower case, or "" for the zero Task.
func (t Task) Name() string {
	if t.spec == nil {
		return ""
	}
	return t.spec.name
}

// String is Name.
func (t Task) String() string { return t.Name() }

// Title is the task's name as the paper prints it, such as "ReCoRD", or "" for the zero Task.
func (t Task) Title() string {
	if t.spec == nil {
		return ""
	}
	return t.spec.title
}

// Heading is what the paper's tables write above the task's column: its title and its first metric,
// such as "ReCoRD F1". It is "" for the zero Task.
func (t Task) Heading() string {
	if t.spec == nil {
		return ""
	}
	return t.spec.title + " " + t.spec.metrics[0].heading
}

// Dir is the name of the task's directory as SuperGLUE publishes it. It equals Title.
func (t Task) Dir() string { return t.Title() }

// Labels lists the targets that tmpl gives to the task's classes, in the order of the class
// numbers. It is nil for ReCoRD and WSC, whose targets are spans of the text.
func (t Task) Labels(tmpl Template) []string {
	if t.spec == nil {
		return nil
	}
	return slices.Clone(t.spec.labels(tmpl))
}

// Metrics lists the names of the task's metrics in the order in which Split.Score gives them.
func (t Task) Metrics() []string {
	if t.spec == nil {
		return nil
	}
	names := make([]string, len(t.spec.metrics))
	for i, m := range t.spec.metrics {
		names[i] = m.name
	}
	return names
}

// labels is Labels without the copy.
func (s *spec) labels(tmpl Template) []string {
	if tmpl == DPT {
		return digits[:len(s.classes):len(s.classes)]
	}
	return s.classes
}

// digits are the DPT template's targets: a class's number as SuperGLUE's loader counts them.
var digits = []string{"0", "1", "2"}
