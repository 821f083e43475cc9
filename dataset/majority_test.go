package dataset_test

import (
	"testing"

	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/mini"
)

func TestMajority(t *testing.T) {
	for _, name := range dataset.Tasks() {
		for _, tmpl := range []dataset.Template{dataset.DPT, dataset.T5} {
			task, err := dataset.Lookup(name)
			if err != nil {
				t.Fatal(err)
			}
			s, err := dataset.Load(mini.FS(), task, "val", tmpl)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.Majority()
			if err != nil {
				t.Fatal(err)
			}
			if name == "record" {
				if got != nil {
					t.Errorf("%s: %v, want no constant guess", name, got)
				}
				continue
			}
			count := map[int]int{}
			most := 0
			for _, e := range s.Eval {
				count[e.Label]++
				most = max(most, count[e.Label])
			}
			want := 100 * float64(most) / float64(len(s.Eval))
			if name == "multirc" { // F1 of always true: all of them are found
				want = 100 * 2 * float64(count[1]) / float64(count[1]+len(s.Eval))
			}
			if v := got[0].Value; v < want-1e-9 || v > want+1e-9 {
				t.Errorf("%s, template %s: %v, want %v by counting", name, tmpl, got, want)
			}
		}
	}
	if _, err := (&dataset.Split{}).Majority(); err != nil {
		t.Errorf("a split without a task: %v, want no guess and no error", err)
	}
}
