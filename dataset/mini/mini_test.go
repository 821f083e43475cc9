package mini_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"slices"
	"testing"

	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/mini"
	"github.com/dptune/dpt/dataset/mini/world"
)

// files reads the embedded files.
func files(t *testing.T) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := fs.WalkDir(mini.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		out[name], err = fs.ReadFile(mini.FS(), name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEmbeddedFilesAreGenerated(t *testing.T) {
	want, err := world.Generate(world.Seed, world.Embedded)
	if err != nil {
		t.Fatal(err)
	}
	got := files(t)
	if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(g, w) {
		t.Fatalf("embedded files are %q, generated ones %q", g, w)
	}
	total := 0
	for name, content := range got {
		if !bytes.Equal(content, want[name]) {
			t.Errorf("%s differs from what the generator writes; run go generate in dataset/mini", name)
		}
		total += len(content)
	}
	if total > 500_000 {
		t.Errorf("the files have %d bytes, want at most 500,000", total)
	}
}

func TestSizesLabelsAndLengths(t *testing.T) {
	lines := map[string]int{"train": world.Embedded.Train, "val": world.Embedded.Val, "test": world.Embedded.Test}
	for _, name := range dataset.Tasks() {
		task, err := dataset.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		longest := 160
		if name == "multirc" || name == "record" {
			longest = 250
		}
		for split, want := range lines {
			content, err := fs.ReadFile(mini.FS(), task.Dir()+"/"+split+".jsonl")
			if err != nil {
				t.Fatal(err)
			}
			if got := bytes.Count(content, []byte("\n")); got != want {
				t.Errorf("%s %s has %d lines, want %d", name, split, got, want)
			}
			for _, tmpl := range []dataset.Template{dataset.DPT, dataset.T5} {
				s, err := dataset.Load(mini.FS(), task, split, tmpl)
				if err != nil {
					t.Errorf("%s %s: %v", name, split, err)
					continue
				}
				if s.Labeled == (split == "test") {
					t.Errorf("%s %s is labeled %v", name, split, s.Labeled)
				}
				for _, e := range s.Eval {
					if len(e.Source) > longest {
						t.Errorf("%s %s has a source of %d bytes, want at most %d: %q", name, split, len(e.Source), longest, e.Source)
					}
				}
				if s.Labeled {
					checkBalance(t, s)
				}
			}
		}
	}
}

// checkBalance checks that the classes are even: exactly where a line is an example, nearly in MultiRC.
func checkBalance(t *testing.T, s *dataset.Split) {
	t.Helper()
	count := map[int]int{}
	for _, e := range s.Eval {
		count[e.Label]++
	}
	least, most := len(s.Eval), 0
	for _, n := range count {
		least, most = min(least, n), max(most, n)
	}
	slack := 1
	if s.Task.Name() == "multirc" {
		slack = len(s.Eval) / 5
	}
	if s.Task.Name() != "record" && (most-least > slack || len(count) < 2) {
		t.Errorf("%s %s has %v examples by label, want even numbers", s.Task, s.Name, count)
	}
}

// A validation example that is a training example would measure memory.
func TestSplitsShareNoSource(t *testing.T) {
	for _, name := range dataset.Tasks() {
		task, err := dataset.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]string{}
		for _, split := range []string{"train", "val", "test"} {
			s, err := dataset.Load(mini.FS(), task, split, dataset.T5)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range s.Eval {
				if other, ok := seen[e.Source]; ok && other != split {
					t.Errorf("%s: %s and %s share %q", name, other, split, e.Source)
				}
				seen[e.Source] = split
			}
		}
	}
}

// The offsets in the files must point at what they are about.
func TestOffsets(t *testing.T) {
	all := files(t)
	for _, split := range []string{"train", "val", "test"} {
		for raw := range bytes.Lines(all["WSC/"+split+".jsonl"]) {
			var l struct {
				Text   string
				Target struct {
					Span1 string `json:"span1_text"`
					Span2 string `json:"span2_text"`
					At1   int    `json:"span1_index"`
					At2   int    `json:"span2_index"`
				}
			}
			decode(t, raw, &l)
			words := bytes.Fields([]byte(l.Text))
			for span, at := range map[string]int{l.Target.Span1: l.Target.At1, l.Target.Span2: l.Target.At2} {
				n := len(bytes.Fields([]byte(span)))
				if got := string(bytes.Join(words[at:at+n], []byte(" "))); got != span {
					t.Errorf("words at %d of %q are %q, want %q", at, l.Text, got, span)
				}
			}
		}
		for raw := range bytes.Lines(all["WiC/"+split+".jsonl"]) {
			var l struct {
				Word, Sentence1, Sentence2 string
				Start1, End1, Start2, End2 int
			}
			decode(t, raw, &l)
			for _, word := range []string{l.Sentence1[l.Start1:l.End1], l.Sentence2[l.Start2:l.End2]} {
				if word != l.Word && word != l.Word+"s" && word != l.Word+"es" {
					t.Errorf("span is %q in %s, want a form of %q", word, raw, l.Word)
				}
			}
		}
		for raw := range bytes.Lines(all["ReCoRD/"+split+".jsonl"]) {
			var l struct {
				Passage struct {
					Text     string
					Entities []struct{ Start, End int }
				}
				QAs []struct {
					Query   string
					Answers []struct {
						Start, End int
						Text       string
					}
				}
			}
			decode(t, raw, &l)
			if bytes.Count([]byte(l.Passage.Text), []byte("\n@highlight\n")) < 2 {
				t.Errorf("passage %q has fewer than two bullets", l.Passage.Text)
			}
			for _, q := range l.QAs {
				if bytes.Count([]byte(q.Query), []byte("@placeholder")) != 1 || split != "test" && len(q.Answers) == 0 {
					t.Errorf("query %q has answers %v, want one placeholder and an answer", q.Query, q.Answers)
				}
				for _, a := range q.Answers {
					if got := l.Passage.Text[a.Start : a.End+1]; got != a.Text {
						t.Errorf("answer is %q where %q is said to be", got, a.Text)
					}
					if !slices.Contains(l.Passage.Entities, struct{ Start, End int }{a.Start, a.End}) {
						t.Errorf("answer %v of %q is no entity", a, q.Query)
					}
				}
			}
		}
	}
}

func decode(t *testing.T, raw []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}
