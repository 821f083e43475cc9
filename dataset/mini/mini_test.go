package mini_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/mini"
)

// digest is the SHA-256 of the files in the order of their names.
const digest = "ac6997d632a4cf474d7377330266de391dc7d91ce192ec70b11790ebbb3e509c"

// files reads all files.
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

func TestFS(t *testing.T) {
	if err := fstest.TestFS(mini.FS(), "BoolQ/train.jsonl", "WSC/test.jsonl", "MultiRC/val.jsonl"); err != nil {
		t.Error(err)
	}
}

// The same seed gives the same bytes always, on every platform: jobs record the digests of their
// data.
func TestBytesNeverChange(t *testing.T) {
	h := sha256.New()
	all := files(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		h.Write(all[name])
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != digest {
		t.Errorf("the files' SHA-256 is %s, want %s: a change of the data set changes every figure measured on it",
			got, digest)
	}
}

func TestSeedsDiffer(t *testing.T) {
	sizes := mini.Sizes{Train: 4, Val: 2, Test: 2}
	for _, name := range []string{"BoolQ/train.jsonl", "WSC/val.jsonl"} {
		a, err := fs.ReadFile(mini.New(1, sizes), name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := fs.ReadFile(mini.New(2, sizes), name)
		if err != nil {
			t.Fatal(err)
		}
		if len(a) == 0 || bytes.Equal(a, b) {
			t.Errorf("%s is empty or the same for two seeds", name)
		}
	}
}

// A world that is too small must say so rather than search for ever or repeat itself.
func TestExhaustedWorld(t *testing.T) {
	_, err := fs.ReadFile(mini.New(1, mini.Sizes{Train: 50_000, Val: 1, Test: 1}), "WSC/train.jsonl")
	if err == nil || !strings.Contains(err.Error(), "found no new line") {
		t.Errorf("100,000 lines of WSC give %v, want an error that says that there are no more", err)
	}
}

func TestSizesLabelsAndLengths(t *testing.T) {
	sizes := map[string]int{"train": mini.Standard.Train, "val": mini.Standard.Val, "test": mini.Standard.Test}
	for _, name := range dataset.Tasks() {
		task, err := dataset.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		longest := 160
		if name == "record" {
			longest = 220
		}
		for split, want := range sizes {
			for _, tmpl := range []dataset.Template{dataset.DPT, dataset.T5} {
				s, err := dataset.Load(mini.FS(), task, split, tmpl)
				if err != nil {
					t.Errorf("%s %s: %v", name, split, err)
					continue
				}
				if s.Labeled == (split == "test") {
					t.Errorf("%s %s is labeled %v", name, split, s.Labeled)
				}
				got := len(s.Eval)
				if split == "train" {
					got = len(s.Train)
				}
				if got < want || name != "multirc" && name != "record" && got > want {
					t.Errorf("%s %s has %d examples, want %d", name, split, got, want)
				}
				for _, e := range s.Eval {
					if len(e.Source) > longest {
						t.Errorf("%s %s has a source of %d bytes, want at most %d: %q",
							name, split, len(e.Source), longest, e.Source)
					}
				}
				if s.Labeled {
					checkBalance(t, s)
				}
			}
		}
	}
}

// checkBalance checks that the classes are even.
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
	if s.Task.Name() != "record" && (most-least > 1 || len(count) < 2) {
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
