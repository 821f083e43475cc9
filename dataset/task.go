package dataset

import (
	"fmt"
	"slices"
	"strings"
)

// Task is one of SuperGLUE's eight tasks. The zero Task is none of them; Lookup gives one. Tasks compare with ==.
type Task struct {
	spec *spec
}

// spec is all that tells one task from another.
type spec struct {
	name    string   // lower case, as flags give it
	dir     string   // the directory of the published archive
	classes []string // T5's label words in the order of SuperGLUE's class numbers; nil where targets are free text
	metrics []string // names in the order in which score fills them
	parse   func(b *builder, o object)
	score   func(s *Split, predictions []string) []float64
}

// specs is in alphabetical order of name.
var specs = []*spec{
	{name: "boolq", dir: "BoolQ", classes: falseTrue, metrics: onlyAccuracy, parse: parseBoolQ, score: scoreClasses},
	{name: "cb", dir: "CB", classes: []string{"entailment", "contradiction", "neutral"},
		metrics: []string{"accuracy", "f1_macro"}, parse: parseCB, score: scoreCB},
	{name: "copa", dir: "COPA", classes: []string{"choice1", "choice2"}, metrics: onlyAccuracy, parse: parseCOPA, score: scoreClasses},
	{name: "multirc", dir: "MultiRC", classes: falseTrue, metrics: []string{"f1a", "em"}, parse: parseMultiRC, score: scoreMultiRC},
	{name: "record", dir: "ReCoRD", metrics: []string{"f1", "em"}, parse: parseReCoRD, score: scoreReCoRD},
	{name: "rte", dir: "RTE", classes: []string{"entailment", "not_entailment"}, metrics: onlyAccuracy, parse: parseRTE, score: scoreClasses},
	{name: "wic", dir: "WiC", classes: falseTrue, metrics: onlyAccuracy, parse: parseWiC, score: scoreClasses},
	{name: "wsc", dir: "WSC", metrics: onlyAccuracy, parse: parseWSC, score: scoreWSC},
}

var (
	falseTrue    = []string{"False", "True"}
	onlyAccuracy = []string{"accuracy"}
)

// Tasks lists the names of the tasks, in lower case and alphabetical order.
func Tasks() []string {
	names := make([]string, len(specs))
	for i, s := range specs {
		names[i] = s.name
	}
	return names
}

// Lookup returns the task of a name, in any case. The error for another name lists those that exist.
func Lookup(name string) (Task, error) {
	for _, s := range specs {
		if strings.EqualFold(s.name, name) {
			return Task{s}, nil
		}
	}
	return Task{}, fmt.Errorf("unknown task %q, expected one of %s", name, strings.Join(Tasks(), ", "))
}

// Name is the task's name in lower case, or "" for the zero Task.
func (t Task) Name() string {
	if t.spec == nil {
		return ""
	}
	return t.spec.name
}

// String is Name.
func (t Task) String() string { return t.Name() }

// Dir is the name of the task's directory as SuperGLUE publishes it, such as "ReCoRD".
func (t Task) Dir() string {
	if t.spec == nil {
		return ""
	}
	return t.spec.dir
}

// Labels lists the targets that tmpl gives to the task's classes, in the order of the class numbers. It is nil for ReCoRD and
// WSC, whose targets are spans of the text.
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
	return slices.Clone(t.spec.metrics)
}

// labels is Labels without the copy.
func (s *spec) labels(tmpl Template) []string {
	if tmpl == DPT {
		return digits[:len(s.classes):len(s.classes)]
	}
	return s.classes
}

// digits are the DPT code's targets: a class's number as SuperGLUE's loader counts them.
var digits = []string{"0", "1", "2"}
