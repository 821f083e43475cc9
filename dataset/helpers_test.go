package dataset

import (
	"strings"
	"testing"
	"testing/fstest"
)

func lookup(t testing.TB, name string) Task {
	t.Helper()
	task, err := Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// loadEmbedded loads a split of the embedded data.
func loadEmbedded(t testing.TB, task, split string, tmpl Template) *Split {
	t.Helper()
	fsys, err := OpenDir("")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load(fsys, lookup(t, task), split, tmpl)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// loadLines loads the given lines as a split of a task.
func loadLines(t testing.TB, task, split string, tmpl Template, lines ...string) (*Split, error) {
	t.Helper()
	tk := lookup(t, task)
	return Load(fstest.MapFS{
		tk.Dir() + "/" + split + ".jsonl": {Data: []byte(strings.Join(lines, "\n"))},
	}, tk, split, tmpl)
}

// mustLoadLines is loadLines of valid lines.
func mustLoadLines(t testing.TB, task, split string, tmpl Template, lines ...string) *Split {
	t.Helper()
	s, err := loadLines(t, task, split, tmpl, lines...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
