package dataset

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"
)

// goldens is testdata/metrics_goldens.json, which make_metrics_goldens.py beside it writes; its
// predictions are for the files in testdata/tasks.
type goldens struct {
	Scores []struct {
		Task, Split string
		Template    Template
		Predictions []string
		Metrics     map[string]float64
	}
	Squad []struct {
		Prediction, Target string
		Result             [2]float64
	}
	Words []struct {
		Text  string
		Words []string
	}
	WSC []struct {
		Prediction, Target string
		Result             int
	}
}

func readGoldens(t *testing.T) goldens {
	t.Helper()
	data, err := os.ReadFile("testdata/metrics_goldens.json")
	if err != nil {
		t.Fatal(err)
	}
	var g goldens
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	if len(g.Scores) == 0 || len(g.Squad) == 0 || len(g.Words) == 0 || len(g.WSC) == 0 {
		t.Fatal("a part of the goldens is empty")
	}
	return g
}

func TestScoreGoldens(t *testing.T) {
	covered := map[string]int{}
	for _, g := range readGoldens(t).Scores {
		s, err := Load(os.DirFS("testdata/tasks"), lookup(t, g.Task), g.Split, g.Template)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Score(g.Predictions)
		if err != nil {
			t.Errorf("%s %s %s: %v", g.Task, g.Split, g.Template, err)
			continue
		}
		if len(got) != len(g.Metrics) {
			t.Errorf("%s has metrics %v, want those of %v", g.Task, got, g.Metrics)
		}
		for _, m := range got {
			want, ok := g.Metrics[m.Name]
			if !ok || math.Abs(m.Value-want) > 1e-9 {
				t.Errorf("%s %s %s: %s is %v, want %v (%v)", g.Task, g.Split, g.Template, m.Name, m.Value, want, ok)
			}
		}
		covered[g.Task] += len(g.Predictions)
	}
	for _, name := range Tasks() {
		if covered[name] < 300 {
			t.Errorf("goldens hold %d predictions of %s, want at least 300", covered[name], name)
		}
	}
}

func TestSquadGoldens(t *testing.T) {
	g := readGoldens(t)
	for _, w := range g.Words {
		if got := normalizeSQuAD(w.Text); !slices.Equal(got, w.Words) {
			t.Errorf("words of %q are %q, want %q", w.Text, got, w.Words)
		}
	}
	for _, p := range g.Squad {
		s := &Split{Eval: []Example{{Answers: []string{p.Target}}}}
		got := scoreReCoRD(s, []string{p.Prediction})
		if math.Abs(got[0]-100*p.Result[0]) > 1e-9 || got[1] != 100*p.Result[1] {
			t.Errorf("%q for %q scores %v, want %v times 100", p.Prediction, p.Target, got, p.Result)
		}
	}
}

func TestReferentGoldens(t *testing.T) {
	for _, p := range readGoldens(t).WSC {
		if got := predictsReferent(p.Prediction, p.Target); got != p.Result {
			t.Errorf("predictsReferent(%q, %q) = %d, want %d", p.Prediction, p.Target, got, p.Result)
		}
	}
}
