package dataset

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// fuzzTask fuzzes the reader of one task. For any bytes, the reader gives a one-line error or a
// split that keeps its promises.
func fuzzTask(f *testing.F, name string) {
	task := lookup(f, name)
	good := lineOf[name]
	f.Add([]byte(good), "train", false)
	f.Add([]byte(good+"\n"+good), "val", true)
	unlabel := strings.NewReplacer(`"label": true`, `"x": 0`, `"answers": [{"start"`, `"x": [{"start"`)
	f.Add([]byte(unlabel.Replace(good)), "test", false)
	for _, cut := range []int{1, len(good) / 2, len(good) - 1} {
		f.Add([]byte(good[:cut]), "train", true)
	}
	for _, junk := range []string{"null", "[]", "{}", `{"idx":null}`, "\xff", "\ufeff{}", strings.Repeat("[", 1000)} {
		f.Add([]byte(junk), "test", true)
	}
	f.Fuzz(func(t *testing.T, data []byte, split string, t5 bool) {
		split, err := resolveSplit(split)
		if err != nil {
			split = splitTest
		}
		tmpl := DPT
		if t5 {
			tmpl = T5
		}
		s, err := read(bytes.NewReader(data), "f", task, split, tmpl, 1<<16)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") || !utf8.ValidString(err.Error()) {
				t.Errorf("error is not one line of text: %q", err)
			}
			return
		}
		if err := checkInvariants(s); err != nil {
			t.Error(err)
		}
	})
}

// checkInvariants checks what every split promises.
func checkInvariants(s *Split) error {
	for _, list := range [][]Example{s.Train, s.Eval} {
		ids := map[string]bool{}
		for _, e := range list {
			if ids[e.ID] {
				return fmt.Errorf("ID %q comes twice", e.ID)
			}
			ids[e.ID] = true
			if !utf8.ValidString(e.Source) || !utf8.ValidString(e.Target) {
				return fmt.Errorf("example %+v is not valid UTF-8", e)
			}
		}
	}
	if len(s.Eval) == 0 || !s.Labeled && len(s.Train) > 0 {
		return fmt.Errorf("split has %d examples to train on and %d to evaluate, labeled %v",
			len(s.Train), len(s.Eval), s.Labeled)
	}
	var targets []string
	for _, e := range s.Eval {
		targets = append(targets, e.Target)
	}
	m, err := s.Score(targets)
	if s.Labeled != (err == nil) {
		return fmt.Errorf("scoring a split that is labeled %v gives %v", s.Labeled, err)
	}
	for _, one := range m {
		if !(one.Value >= 0 && one.Value <= 100) {
			return fmt.Errorf("metrics are %v, want percentages", m)
		}
	}
	return nil
}

func FuzzReadJSONLBoolQ(f *testing.F)   { fuzzTask(f, "boolq") }
func FuzzReadJSONLCB(f *testing.F)      { fuzzTask(f, "cb") }
func FuzzReadJSONLCOPA(f *testing.F)    { fuzzTask(f, "copa") }
func FuzzReadJSONLMultiRC(f *testing.F) { fuzzTask(f, "multirc") }
func FuzzReadJSONLReCoRD(f *testing.F)  { fuzzTask(f, "record") }
func FuzzReadJSONLRTE(f *testing.F)     { fuzzTask(f, "rte") }
func FuzzReadJSONLWiC(f *testing.F)     { fuzzTask(f, "wic") }
func FuzzReadJSONLWSC(f *testing.F)     { fuzzTask(f, "wsc") }
