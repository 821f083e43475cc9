package dataset

import (
	"fmt"
	"slices"
	"strings"
)

// registry lists the tasks in the order of the paper's tables. A new task is one file with its spec
// and one line here.
var registry = []*spec{
	wsc,
	wic,
	boolQ,
	cb,
	copa,
	multiRC,
	record,
	rte,
}

// Tasks lists the names of the tasks, in lower case and alphabetical order.
func Tasks() []string {
	return slices.Sorted(slices.Values(PaperOrder()))
}

// PaperOrder lists the names of the tasks, in lower case, in the order of the columns of the
// paper's Table 1.
func PaperOrder() []string {
	names := make([]string, len(registry))
	for i, s := range registry {
		names[i] = s.name
	}
	return names
}

// Lookup returns the task of a name, in any case. The error for another name lists those that
// exist.
func Lookup(name string) (Task, error) {
	for _, s := range registry {
		if strings.EqualFold(s.name, name) {
			return Task{s}, nil
		}
	}
	return Task{}, fmt.Errorf("unknown task %q, want one of %s", name, strings.Join(Tasks(), ", "))
}
