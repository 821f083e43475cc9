package corpus_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/internal/world"
	"github.com/dptune/dpt/dataset/lab/corpus"
	"github.com/dptune/dpt/dataset/mini"
)

const (
	sampledPairs     = 100_000
	sampledDocuments = 50_000
)

// tuning is what the tasks' templates and examples hold.
type tuning struct {
	labels  map[string]bool // in lower case
	marks   map[string]bool // words before a colon, in lower case
	sources map[string]bool
	scripts [][2]string // the two choices of each COPA example, without their subjects
}

// collect reads all splits of all tasks in both templates, and checks on the way that every example
// has a reserved pair.
func collect(t *testing.T) tuning {
	t.Helper()
	u := tuning{labels: map[string]bool{}, marks: map[string]bool{}, sources: map[string]bool{}}
	for _, name := range dataset.Tasks() {
		task, err := dataset.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, tmpl := range []dataset.Template{dataset.DPT, dataset.T5} {
			for _, l := range task.Labels(tmpl) {
				u.labels[strings.ToLower(l)] = true
			}
			for _, split := range []string{"train", "val", "test"} {
				s, err := dataset.Load(mini.FS(), task, split, tmpl)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range s.Eval {
					u.sources[e.Source] = true
					for _, w := range strings.Fields(e.Source) {
						if m, ok := strings.CutSuffix(w, ":"); ok {
							u.marks[strings.ToLower(m)] = true
						}
					}
					if name == "copa" {
						if tmpl == dataset.T5 {
							u.scripts = append(u.scripts, choices(t, e.Source))
						}
					} else if !meets(e.Source) {
						t.Errorf("%s %s has no reserved pair: %q", name, split, e.Source)
					}
				}
			}
		}
	}
	return u
}

// choices are the two choices of a COPA source, without subject and full stop.
func choices(t *testing.T, source string) [2]string {
	t.Helper()
	m := regexp.MustCompile(`choice1: \w+ (.*)\. choice2: \w+ (.*)\. premise:`).FindStringSubmatch(source)
	if m == nil {
		t.Fatalf("no choices in %q", source)
	}
	return [2]string{m[1], m[2]}
}

// letters splits a text into its words.
func letters(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_')
	})
}

var names = func() map[string]bool {
	m := map[string]bool{}
	for _, p := range world.People() {
		m[p] = true
	}
	return m
}()

// meets reports whether a text has a reserved pair of people.
func meets(text string) bool {
	var who []string
	for _, w := range letters(text) {
		if !names[w] {
			continue
		}
		if slices.ContainsFunc(who, func(p string) bool { return world.Reserved(p, w) }) {
			return true
		}
		who = append(who, w)
	}
	return false
}

// pronounMark is WSC's way of marking a pronoun, in either template.
var pronounMark = regexp.MustCompile(`\* ?\w+ ?\*`)

// TestHeldOut proves on a large sample what the package documentation says is held out.
func TestHeldOut(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	u := collect(t)
	for _, want := range []string{
		"0", "1", "2", "true", "false", "entailment", "not_entailment", "contradiction", "neutral", "choice1",
		"choice2",
	} {
		if !u.labels[want] {
			t.Errorf("the templates' labels are %v, want %q among them", u.labels, want)
		}
	}
	for _, want := range []string{
		"premise", "hypothesis", "passage", "question", "answer", "paragraph", "sentence1", "sentence2", "word",
		"choice1", "choice2", "query", "entities", "wsc",
	} {
		if !u.marks[want] {
			t.Errorf("the templates' marks are %v, want %q among them", u.marks, want)
		}
	}
	tasks := map[string]bool{"superglue": true, "placeholder": true, "highlight": true}
	for _, name := range dataset.Tasks() {
		tasks[name] = true
	}
	check := func(kind, text string) {
		if u.sources[text] {
			t.Errorf("%s is an example: %q", kind, text)
		}
		if meets(text) {
			t.Errorf("%s has a reserved pair of people: %q", kind, text)
		}
		for _, w := range strings.Fields(text) {
			if m, ok := strings.CutSuffix(w, ":"); ok && u.marks[strings.ToLower(m)] {
				t.Errorf("%s has the templates' %q: %q", kind, w, text)
			}
		}
		for _, w := range letters(text) {
			if tasks[strings.ToLower(w)] {
				t.Errorf("%s has the name %q: %q", kind, w, text)
			}
		}
		if strings.Contains(text, "*") && pronounMark.MatchString(text) {
			t.Errorf("%s marks a pronoun as WSC does: %q", kind, text)
		}
	}
	for i := range uint64(sampledPairs) {
		p, name := corpus.Skill(2023, i)
		check(name, p.Source)
		if u.labels[strings.ToLower(strings.TrimSpace(p.Target))] {
			t.Errorf("%s has the label %q as its target: %q", name, p.Target, p.Source)
		}
		for _, of := range []func(seed, i uint64) (corpus.Pair, string){
			corpus.Several, corpus.Easy, corpus.Table, corpus.Keys,
		} {
			p, name = of(2023, i)
			check(name, p.Source)
			for _, w := range letters(p.Target) {
				if u.labels[strings.ToLower(w)] {
					t.Errorf("%s has the label %q in its target: %q -> %q", name, w, p.Source, p.Target)
				}
			}
		}
		if t.Failed() {
			return // one is enough
		}
	}
	for i := range uint64(sampledDocuments) {
		check("a document", corpus.Document(2023, i))
		if t.Failed() {
			return
		}
	}
}

// TestScriptsHeldOut proves the same for COPA: its two choices never stand in one text.
func TestScriptsHeldOut(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	pairs := map[[2]string]bool{}
	phrases := map[string]bool{}
	for _, c := range collect(t).scripts {
		pairs[c], pairs[[2]string{c[1], c[0]}] = true, true
		phrases[c[0]], phrases[c[1]] = true, true
	}
	if len(phrases) < 90 {
		t.Fatalf("COPA's choices are %d phrases, want nearly all 96", len(phrases))
	}
	found := 0
	check := func(text string) {
		var has []string
		for p := range phrases {
			at := strings.Index(text, p)
			if at < 0 {
				continue
			}
			next := text[at+len(p) : min(len(text), at+len(p)+1)]
			if !strings.ContainsAny(next, ".,") && !strings.Contains(text, p+" because") {
				continue
			}
			has = append(has, p)
			found++
		}
		for _, a := range has {
			for _, b := range has {
				if pairs[[2]string{a, b}] {
					t.Fatalf("%q and %q are choices of an example and stand in %q", a, b, text)
				}
			}
		}
	}
	for i := range uint64(30_000) {
		p, _ := corpus.Skill(1, i)
		check(p.Source)
		p, _ = corpus.Several(1, i)
		check(p.Source)
		p, _ = corpus.Easy(1, i)
		check(p.Source)
		p, _ = corpus.Table(1, i)
		check(p.Source)
	}
	for i := range uint64(15_000) {
		check(corpus.Document(1, i))
	}
	if found < 10_000 {
		t.Errorf("%d phrases found, want thousands", found)
	}
}

// What is held out must be found where it is.
func TestMeets(t *testing.T) {
	var with, without [2]string
	for _, p := range world.People() {
		for _, q := range world.People() {
			if world.Reserved(p, q) {
				with = [2]string{p, q}
			} else if p != q {
				without = [2]string{p, q}
			}
		}
	}
	if !meets(with[0]+" beat "+with[1]+".") || meets(without[0]+" beat "+without[1]+".") {
		t.Errorf("%v are not found as a reserved pair, or %v are", with, without)
	}
}
