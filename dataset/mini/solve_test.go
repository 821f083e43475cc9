package mini_test

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/lab/corpus"
	"github.com/dptune/dpt/dataset/mini"
)

// reader solves every example from its text alone, by its own rules and by what it has read: it
// learns causes, word senses, motives and attitudes from the documents of package corpus. It shares
// no code with what made the examples.
type reader struct {
	t     *testing.T        // the test that asks
	topic map[string]string // a cause or effect -> the cause that stands for its script
	sense map[string]string // a sentence without its subject -> what the word in it is
	first map[string]bool   // the words of a deed and of its reason -> whether the one named first is meant
	truth map[string]string // an attitude -> "Surely", "It is not so that" or "Maybe"
}

var (
	causePattern   = regexp.MustCompile(`(?:^|[.] )(\w+) ([a-z ]+), so (?:he|she) ([a-z ]+)\.`)
	becausePattern = regexp.MustCompile(`(?:^|[.] )(\w+) ([a-z ]+) because (?:he|she) ([a-z ]+)\.`)
	sensePattern   = regexp.MustCompile(`[A-Z]\w+ ([^.]+)\. This \w+ is a ([^.]+)\.`)
	sensesPattern  = regexp.MustCompile(`[A-Z]\w+ ([^.]+)\. [A-Z]\w+ ([^.]+)\. ` +
		`One \w+ is a ([^.]+), the other a ([^.]+)\.`)
	motivePattern = regexp.MustCompile(`([A-Z]\w+) ([a-z ]+) ([A-Z]\w+) because (?:he|she) ([a-z ]+)\. ` +
		`So ([A-Z]\w+) ([a-z ]+)\.`)
	attitudePattern = regexp.MustCompile(`[A-Z]\w+ ([^.]*)\. (Surely|It is not so that|Maybe) (\w+ \w+)\.`)
)

// newReader returns the reader for a test. All tests share what it has read.
func newReader(t *testing.T) *reader {
	r := *hasRead()
	r.t = t
	return &r
}

var hasRead = sync.OnceValue(func() *reader {
	r := &reader{nil, map[string]string{}, map[string]string{}, map[string]bool{}, map[string]string{}}
	for i := range uint64(25_000) {
		d := corpus.Document(11, i)
		for _, m := range causePattern.FindAllStringSubmatch(d, -1) {
			r.link(m[2], m[3])
		}
		for _, m := range becausePattern.FindAllStringSubmatch(d, -1) {
			r.link(m[3], m[2])
		}
		for _, m := range sensePattern.FindAllStringSubmatch(d, -1) {
			r.sense[m[1]] = m[2]
		}
		for _, m := range sensesPattern.FindAllStringSubmatch(d, -1) {
			r.sense[m[1]], r.sense[m[2]] = m[3], m[4]
		}
		for _, m := range motivePattern.FindAllStringSubmatch(d, -1) {
			r.first[m[2]+"|"+m[4]] = m[5] == m[1]
		}
		for _, m := range attitudePattern.FindAllStringSubmatch(d, -1) {
			for _, part := range strings.Split(strings.ReplaceAll(m[1], " and ", ", "), ", ") {
				if attitude, ok := strings.CutSuffix(part, " "+m[3]); ok {
					r.truth[attitude] = m[2]
				}
			}
		}
	}
	return r
})

// What the documents teach must be what everybody knows.
func TestReaderKnows(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	r := newReader(t)
	for deed, first := range map[string]bool{
		"fed|was hungry":             false,
		"was fed by|was hungry":      true,
		"thanked|had helped":         false,
		"was healed by|was a doctor": false,
		"arrested|was a cop":         true,
		"was paid by|was the seller": true,
		"envied|was rich":            false,
		"saved|was drowning":         false,
	} {
		if got, ok := r.first[deed]; !ok || got != first {
			t.Errorf("of %q the first is meant: %v (%v), want %v", deed, got, ok, first)
		}
	}
	for cause, effect := range map[string]string{
		"overslept": "came late to school", "slipped on ice": "broke a leg", "cut an onion": "wiped away tears",
	} {
		if r.script(cause) != r.script(effect) || r.script(cause) == r.script("got wet") {
			t.Errorf("%q does not explain %q, or all", cause, effect)
		}
	}
	for sentence, sense := range map[string]string{
		"robbed a bank": "money house", "fished from the bank": "river side", "won the match": "game",
	} {
		if r.sense[sentence] != sense {
			t.Errorf("%q is about a %q, want a %q", sentence, r.sense[sentence], sense)
		}
	}
	for attitude, truth := range map[string]string{
		"knows that": "Surely", "lied that": "It is not so that", "wonders if": "Maybe",
	} {
		if r.truth[attitude] != truth {
			t.Errorf("%q means %q, want %q", attitude, r.truth[attitude], truth)
		}
	}
}

// link puts two phrases under one topic.
func (r *reader) link(cause, effect string) {
	find := func(p string) string {
		for r.topic[p] != "" && r.topic[p] != p {
			p = r.topic[p]
		}
		return p
	}
	a, b := find(cause), find(effect)
	r.topic[a], r.topic[b] = a, a
	r.topic[cause], r.topic[effect] = a, a
}

func (r *reader) script(phrase string) string {
	p := phrase
	for r.topic[p] != p {
		if p = r.topic[p]; p == "" {
			r.t.Fatalf("no document tells what goes with %q", phrase)
		}
	}
	return p
}

// solve is the target of a source in the T5 template.
func (r *reader) solve(task, source string) string {
	part := func(from, to string) string {
		_, s, ok := strings.Cut(source, from)
		if to != "" {
			s, _, ok = strings.Cut(s, to)
		}
		if !ok {
			r.t.Fatalf("%s: no %q and %q in %q", task, from, to, source)
		}
		return strings.TrimSpace(s)
	}
	boolean := func(b bool) string {
		if b {
			return "True"
		}
		return "False"
	}
	switch task {
	case "boolq":
		return boolean(r.attribute(part("passage:", "question:"), part("question:", "")))
	case "cb":
		premise, hypothesis := strings.TrimSuffix(part("premise:", ""), "."), part("hypothesis:", "premise:")
		_, rest, _ := strings.Cut(premise, " ")
		for _, clause := range strings.Split(strings.Replace(rest, " and ", ", ", 1), ", ") {
			if attitude, ok := strings.CutSuffix(clause, " "+hypothesis); ok {
				return map[string]string{
					"Surely": "entailment", "It is not so that": "contradiction", "Maybe": "neutral",
				}[r.truth[attitude]]
			}
		}
	case "copa":
		topic := func(s string) string {
			_, s, _ = strings.Cut(strings.TrimSuffix(s, "."), " ")
			return r.script(s)
		}
		premise := topic(part("premise:", "question:"))
		one, other := topic(part("choice1:", "choice2:")), topic(part("choice2:", "premise:"))
		switch {
		case one == premise && other != premise:
			return "choice1"
		case other == premise && one != premise:
			return "choice2"
		}
	case "multirc":
		question, answer, text := part("question:", "answer:"), part("answer:", "paragraph:"), part("paragraph:", "")
		person, thing := strings.Fields(question)[2], strings.TrimPrefix(answer, "A ")
		if strings.HasPrefix(question, "Who") {
			person, thing = answer, strings.TrimSuffix(strings.Fields(question)[3], "?")
		}
		for _, s := range strings.Split(strings.TrimSuffix(text, "."), ". ") {
			if strings.HasPrefix(s, person+" ") {
				return boolean(slices.Contains(strings.Fields(s), thing))
			}
		}
	case "record":
		query := part("query:", "entities:")
		asked, ok := parseEvent(strings.TrimSuffix(query, "."))
		for _, s := range strings.Split(part("passage:", ""), ". ") {
			e, isEvent := parseEvent(s)
			if !ok || !isEvent || e.relation != asked.relation || e.thing != asked.thing {
				continue
			}
			if asked.agent == "@placeholder" {
				return e.agent
			}
			return e.patient
		}
	case "rte":
		premise, hypothesis := part("premise:", ""), part("hypothesis:", "premise:")
		if r.follows(strings.TrimSuffix(premise, "."), strings.TrimSuffix(hypothesis, ".")) {
			return "entailment"
		}
		return "not_entailment"
	case "wic":
		sense := func(s string) string {
			_, s, _ = strings.Cut(strings.TrimSuffix(s, "."), " ")
			if r.sense[s] == "" {
				r.t.Fatalf("no document tells what %q is about", s)
			}
			return r.sense[s]
		}
		return boolean(sense(part("sentence1:", "sentence2:")) == sense(part("sentence2:", "word:")))
	case "wsc":
		m := regexp.MustCompile(`^wsc: (\w+) ([a-z ]+) (\w+) because \*\w+\* ([a-z ]+)\.$`).FindStringSubmatch(source)
		if m == nil {
			break
		}
		first, ok := r.first[m[2]+"|"+m[4]]
		switch {
		case !ok:
			r.t.Fatalf("no document tells who %q because of %q", m[2], m[4])
		case first:
			return m[1]
		default:
			return m[3]
		}
	}
	r.t.Fatalf("%s: cannot read %q", task, source)
	return ""
}

var (
	hasPattern = regexp.MustCompile(`^(\w+) has a (?:(\w+) )?(\w+)(?: in the (\w+))?$`)
	askPattern = regexp.MustCompile(`^(?:does (\w+) have the (\w+)|is the (\w+) (?:in the )?(\w+))$`)
)

// attribute answers whether somebody has something, or of what color or where it is.
func (r *reader) attribute(passage, question string) bool {
	q := askPattern.FindStringSubmatch(question)
	if q == nil {
		r.t.Fatalf("cannot read the question %q", question)
	}
	for _, s := range strings.Split(strings.TrimSuffix(passage, "."), ". ") {
		m := hasPattern.FindStringSubmatch(s)
		if m == nil {
			r.t.Fatalf("cannot read the sentence %q", s)
		}
		if thing := m[3]; thing == q[2]+q[3] {
			return m[1] == q[1] && q[1] != "" || q[4] != "" && (m[2] == q[4] || m[4] == q[4])
		}
	}
	r.t.Fatalf("%q is not about %q", passage, question)
	return false
}

// event is what somebody did to somebody.
type event struct{ relation, agent, patient, thing string }

// verbs are the verbs of the world's events, by relation: of the agent as subject, and of the
// patient. A passive is the first with "was".
var verbs = []struct{ relation, agent, participle, patient string }{
	{"give", "gave", "given", "got"}, {"sell", "sold", "sold", "bought"},
	{"lend", "lent", "lent", "borrowed"}, {"send", "sent", "sent", "received"},
	{"teach", "taught", "taught", "learned"}, {"beat", "beat", "beaten", "lost"}, {"lead", "led", "led", "followed"},
	{"hire", "hired", "hired", "worked"}, {"chase", "chased", "chased", "fled"}, {"host", "hosted", "hosted", "stayed"},
	{"scare", "scared", "scared", "feared"}, {"cure", "cured", "cured", "got well"}, {"pay", "paid", "paid", "earned"},
}

// parseEvent reads a sentence word by word: the subject, the verb, and of the rest the thing behind
// "a" and the one other person.
func parseEvent(s string) (e event, ok bool) {
	subject, rest, _ := strings.Cut(s, " ")
	rest, passive := strings.CutPrefix(rest, "was ")
	other := ""
	ws := strings.Fields(rest)
	for i, w := range ws {
		switch {
		case i > 0 && ws[i-1] == "a":
			e.thing = w
		case w[0] >= 'A' && w[0] <= 'Z' || w[0] == '@' || w == "somebody":
			other = w
		}
	}
	if subject == "Somebody" {
		subject = "somebody"
	}
	best := 0
	for _, v := range verbs {
		for _, form := range []struct {
			verb    string
			agent   bool
			passive bool
		}{{v.agent, true, false}, {v.participle, false, true}, {v.patient, false, false}} {
			if form.passive != passive || !strings.HasPrefix(rest, form.verb+" ") || len(form.verb) <= best {
				continue
			}
			best = len(form.verb) // "got well" rather than "got"
			e.relation, e.agent, e.patient = v.relation, other, subject
			if form.agent {
				e.agent, e.patient = subject, other
			}
		}
	}
	return e, best > 0 && other != ""
}

var (
	comparePattern = regexp.MustCompile(`^(\w+) is (not )?(\w+) than (\w+)$`)
	canPattern     = regexp.MustCompile(`^(\w+) can (not )?(\w+)$`)
	butPattern     = regexp.MustCompile(`^(\w+) can (not )?(\w+) but (\w+) can( not)?$`)
)

// follows reports whether a hypothesis is true where a premise is.
func (r *reader) follows(premise, hypothesis string) bool {
	match := func(pattern *regexp.Regexp, text string) []string { return pattern.FindStringSubmatch(text) }
	if p, h := match(comparePattern, premise), match(comparePattern, hypothesis); p != nil && h != nil {
		// bigger reports whether the first of the premise's two is more than the second, on the
		// scale of the words in up.
		bigger := func(m []string) bool {
			up := slices.Contains([]string{"older", "taller", "richer", "faster", "stronger"}, m[3])
			return up == (m[1] == p[1]) == (m[2] == "")
		}
		return bigger(p) == bigger(h)
	}
	if p, h := match(butPattern, premise), match(canPattern, hypothesis); p != nil && h != nil {
		can := p[4]
		if p[2] == "" {
			can = p[1]
		}
		return p[3] == h[3] && (h[1] == can) == (h[2] == "")
	}
	p, ok := parseEvent(premise)
	h, too := parseEvent(hypothesis)
	if !ok || !too || p.relation != h.relation || p.thing != h.thing {
		r.t.Fatalf("cannot read %q and %q", premise, hypothesis)
	}
	return p == h
}

// TestReaderSolvesAll checks that the reader finds every label from the text.
func TestReaderSolvesAll(t *testing.T) {
	r := newReader(t)
	larger := mini.New(5, mini.Sizes{Train: 1000, Val: 10, Test: 1})
	for _, name := range dataset.Tasks() {
		task, err := dataset.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		var splits []*dataset.Split
		for _, split := range []string{"train", "val"} {
			for _, from := range []struct {
				name string
				fsys fs.FS
			}{
				{"the embedded data", mini.FS()},
				{"a larger sample", larger},
			} {
				s, err := dataset.Load(from.fsys, task, split, dataset.T5)
				if err != nil {
					t.Fatalf("%s: %v", from.name, err)
				}
				splits = append(splits, s)
			}
		}
		for _, s := range splits {
			for _, e := range s.Eval {
				want := e.Target
				got := r.solve(name, e.Source)
				if right := got == want; right != (name != "wsc" || e.Label == 1) {
					t.Errorf("%s: the reader says %q of %q, the label says %q (%d)", name, got, e.Source, want, e.Label)
				}
			}
		}
	}
}
