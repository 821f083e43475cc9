package dataset

import (
	"slices"
	"testing"
)

// The paper's Table 1 has these columns in this order.
func TestHeadingsInPaperOrder(t *testing.T) {
	var headings, titles []string
	for _, name := range PaperOrder() {
		task := lookup(t, name)
		headings, titles = append(headings, task.Heading()), append(titles, task.Title())
	}
	want := []string{
		"WSC Acc.", "WiC Acc.", "BoolQ Acc.", "CB Acc.", "COPA Acc.", "MultiRC F1", "ReCoRD F1", "RTE Acc.",
	}
	if !slices.Equal(headings, want) {
		t.Errorf("headings are %q, want %q", headings, want)
	}
	if want := []string{"WSC", "WiC", "BoolQ", "CB", "COPA", "MultiRC", "ReCoRD", "RTE"}; !slices.Equal(titles, want) {
		t.Errorf("titles are %q, want %q", titles, want)
	}
	if task := (Task{}); task.Title() != "" || task.Heading() != "" || task.Metrics() != nil {
		t.Errorf("the zero task has the title %q, the heading %q and the metrics %q, want none",
			task.Title(), task.Heading(), task.Metrics())
	}
}

func TestTasksAreAlphabetical(t *testing.T) {
	want := []string{"boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc"}
	if got := Tasks(); !slices.Equal(got, want) {
		t.Errorf("tasks are %q, want %q", got, want)
	}
}
