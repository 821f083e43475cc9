package dataset

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"
)

// TestRandomGoldens scores a thousand random predictions of each task and template. The wanted
// scores come from scikit-learn and the T5 and SuperGLUE code; see testdata/make_random_goldens.py.
func TestRandomGoldens(t *testing.T) {
	data, err := os.ReadFile("testdata/random_goldens.json")
	if err != nil {
		t.Fatal(err)
	}
	var goldens []struct {
		Task        string
		Template    Template
		Metrics     map[string]float64
		Pool        []string
		Predictions []int
	}
	if err := json.Unmarshal(data, &goldens); err != nil {
		t.Fatal(err)
	}
	covered := map[string]bool{}
	for _, g := range goldens {
		task := lookup(t, g.Task)
		s := &Split{Task: task, Name: "both", Template: g.Template, Labeled: true}
		var all []Example
		for _, split := range []string{"train", "val"} {
			part, err := Load(os.DirFS("testdata/tasks"), task, split, g.Template)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range part.Eval {
				e.Group = split + "/" + e.Group
				all = append(all, e)
			}
		}
		var texts []string
		invalid := 0
		for i, p := range g.Predictions {
			s.Eval = append(s.Eval, all[i%len(all)])
			texts = append(texts, g.Pool[p])
			if !slices.Contains(task.Labels(g.Template), g.Pool[p]) {
				invalid++
			}
		}
		if len(texts) != 1000 || invalid < 100 {
			t.Errorf("%s %s: %d predictions, %d of them invalid, want 1000 and at least 100",
				g.Task, g.Template, len(texts), invalid)
		}
		got, err := s.Score(texts)
		if err != nil {
			t.Errorf("%s %s: %v", g.Task, g.Template, err)
			continue
		}
		if len(got) != len(g.Metrics) {
			t.Errorf("%s has metrics %v, want those of %v", g.Task, got, g.Metrics)
		}
		for _, m := range got {
			if want, ok := g.Metrics[m.Name]; !ok || math.Abs(m.Value-want) > 1e-9 {
				t.Errorf("%s %s: %s is %v, want %v (%v)", g.Task, g.Template, m.Name, m.Value, want, ok)
			}
		}
		covered[g.Task+" "+string(g.Template)] = true
	}
	for _, name := range Tasks() {
		for _, tmpl := range []Template{DPT, T5} {
			if !covered[name+" "+string(tmpl)] {
				t.Errorf("no predictions of %s %s", name, tmpl)
			}
		}
	}
}
