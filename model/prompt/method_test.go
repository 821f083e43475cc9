package prompt

import (
	"maps"
	"slices"
	"testing"
)

// TestRegistry: every method is described in full, and no two share a name or a title.
func TestRegistry(t *testing.T) {
	names, titles := map[string]bool{}, map[string]bool{}
	for _, m := range Methods() {
		if m.Name == "" || names[m.Name] || m.Title == "" || titles[m.Title] || m.Summary == "" {
			t.Errorf("method %q: title %q, summary %q, want all of them, and name and title no other method's",
				m.Name, m.Title, m.Summary)
		}
		names[m.Name], titles[m.Title] = true, true
		if got, err := Lookup(m.Name); err != nil || got.Title != m.Title {
			t.Errorf("method %s: found %q (%v)", m.Name, got.Title, err)
		}
		if !slices.Contains(m.Starts, m.DefaultStart) {
			t.Errorf("method %s: starts from %s, want one of %v", m.Name, m.DefaultStart, m.Starts)
		}
		for _, start := range m.Starts {
			if !slices.Contains(allStarts, start) {
				t.Errorf("method %s: start %q, want one of %v", m.Name, start, allStarts)
			}
		}
		if b := m.Bottleneck; b != nil && (b.Meaning == "" || b.DefaultText == "") {
			t.Errorf("method %s: bottleneck %+v, want words for help texts", m.Name, *b)
		}
		cfg := Config{Method: m.Name, Dim: 8, Length: 3, Bottleneck: DefaultBottleneck(m.Name, 8, 3)}
		if err := cfg.Validate(); err != nil {
			t.Errorf("method %s with its default bottleneck: %v", m.Name, err)
		}
		_, err := ProbeOf(cfg, initial(cfg, 1, 1))
		if cfg.Probed() != (err == nil) {
			t.Errorf("method %s: probed %v, error %v", m.Name, cfg.Probed(), err)
		}
	}
	if sorted := slices.Sorted(maps.Keys(names)); !slices.Equal(Names(), sorted) {
		t.Errorf("names %v, want %v", Names(), sorted)
	}
}

// TestStarts: a method starts from rows exactly if it lists starts that give rows.
func TestStarts(t *testing.T) {
	for _, m := range Methods() {
		cfg := Config{Method: m.Name, Dim: 8, Length: 3, Bottleneck: DefaultBottleneck(m.Name, 8, 3)}
		_, err := cfg.Init(Start{Std: 1, Rows: make([]float32, 24)})
		for _, start := range []string{StartVocabulary, StartLabels, StartText} {
			if slices.Contains(m.Starts, start) != (err == nil) {
				t.Errorf("method %s: starts %v; from rows: %v", m.Name, m.Starts, err)
			}
		}
	}
}
