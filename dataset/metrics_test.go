package dataset

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
)

func TestMetrics(t *testing.T) {
	m := Metrics{{"f1", 50}, {"em", 25.125}}
	if got := m.Primary(); got != 37.5625 {
		t.Errorf("Primary is %v, want the mean 37.5625", got)
	}
	if got := (Metrics)(nil).Primary(); got != 0 {
		t.Errorf("Primary of no metrics is %v, want 0", got)
	}
	if v, ok := m.Get("em"); v != 25.125 || !ok {
		t.Errorf("em is %v, %v, want 25.125", v, ok)
	}
	if _, ok := m.Get("accuracy"); ok {
		t.Error("accuracy is there, want none")
	}
	if got, want := m.String(), "f1 50.00, em 25.12"; got != want {
		t.Errorf("String is %q, want %q", got, want)
	}
}

func TestMetricsJSON(t *testing.T) {
	m := Metrics{{"f1", 50}, {"em", 25.125}}
	text, err := json.Marshal(map[string]any{"metrics": m})
	if err != nil || string(text) != `{"metrics":{"f1":50,"em":25.125}}` {
		t.Errorf("JSON is %s, %v", text, err)
	}
	var back struct{ Metrics Metrics }
	if err := json.Unmarshal(text, &back); err != nil || !slices.Equal(back.Metrics, m) {
		t.Errorf("read back as %v, %v, want %v", back.Metrics, err, m)
	}
	if text, err := json.Marshal(Metrics{}); err != nil || string(text) != `{}` {
		t.Errorf("JSON of no metrics is %s, %v, want {}", text, err)
	}
	if _, err := json.Marshal(Metrics{{"f1", math.NaN()}}); err == nil {
		t.Error("NaN becomes JSON, want an error")
	}
	for _, bad := range []string{`[1]`, `{"f1":"x"}`, `3`} {
		if err := json.Unmarshal([]byte(bad), &m); err == nil {
			t.Errorf("%s is read as metrics, want an error", bad)
		}
	}
}

func TestScoreRefuses(t *testing.T) {
	s := loadEmbedded(t, "cb", "val", DPT)
	if _, err := s.Score(make([]string, len(s.Eval)-1)); err == nil {
		t.Error("too few predictions are scored, want an error")
	}
	for _, s := range []*Split{{}, {Task: s.Task, Labeled: true}} {
		if _, err := s.Score(nil); err == nil {
			t.Errorf("%+v is scored, want an error", s)
		}
	}
}
