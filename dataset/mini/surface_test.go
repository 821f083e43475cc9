package mini_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/mini"
)

// item is an example as a surface model sees it: named texts, and the class. The items of a group
// are alternatives, one of which is right (the candidates of ReCoRD); an item with a negative group
// stands alone.
type item struct {
	fields []string // name, text, name, text, ...
	class  int
	group  int
}

// items reads a file of a task.
func items(t *testing.T, fsys fs.FS, dir, split string) []item {
	t.Helper()
	raw, err := fs.ReadFile(fsys, dir+"/"+split+".jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var out []item
	for n, l := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		out = append(out, lineItems(t, dir, n, []byte(l))...)
	}
	return out
}

func lineItems(t *testing.T, dir string, n int, raw []byte) []item {
	t.Helper()
	var l struct {
		Question, Premise, Hypothesis, Choice1, Choice2, Word, Sentence1, Sentence2, Text string
		Label                                                                             any
		Passage                                                                           json.RawMessage
		Target                                                                            struct {
			Span1_text  string
			Span1_index int
		}
		QAs []struct {
			Query   string
			Answers []struct{ Text string }
		}
	}
	decode(t, raw, &l)
	class := 0
	switch v := l.Label.(type) {
	case bool:
		class = one(v)
	case float64:
		class = int(v)
	case string:
		class = slices.Index([]string{"entailment", "contradiction", "neutral", "not_entailment"}, v) % 3
		if v == "not_entailment" {
			class = 1
		}
	}
	switch dir {
	case "BoolQ":
		var passage string
		decode(t, l.Passage, &passage)
		return []item{{[]string{"passage", passage, "question", l.Question}, class, -1}}
	case "CB", "RTE":
		return []item{{[]string{"premise", l.Premise, "hypothesis", l.Hypothesis}, class, -1}}
	case "COPA":
		fields := []string{"asked", l.Question, "premise", l.Premise, "choice1", l.Choice1, "choice2", l.Choice2}
		return []item{{fields, class, -1}}
	case "WiC":
		return []item{{[]string{"word", l.Word, "sentence1", l.Sentence1, "sentence2", l.Sentence2}, class, -1}}
	case "WSC":
		at := strconv.Itoa(l.Target.Span1_index)
		return []item{{[]string{"text", l.Text, "noun", l.Target.Span1_text, "at", at}, class, -1}}
	case "MultiRC":
		var p struct {
			Text      string
			Questions []struct {
				Question string
				Answers  []struct {
					Text  string
					Label int
				}
			}
		}
		decode(t, l.Passage, &p)
		var out []item
		for _, q := range p.Questions {
			for _, a := range q.Answers {
				fields := []string{"passage", p.Text, "question", q.Question, "answer", a.Text}
				out = append(out, item{fields, a.Label, -1})
			}
		}
		return out
	case "ReCoRD":
		var p struct {
			Text     string
			Entities []struct{ Start, End int }
		}
		decode(t, l.Passage, &p)
		text := strings.ReplaceAll(p.Text, "\n@highlight\n", " . ")
		var names []string
		for _, e := range p.Entities {
			names = append(names, p.Text[e.Start:e.End+1])
		}
		var out []item
		for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
			// The candidate's name is marked where it stands, so that the words beside it can
			// count.
			mark := func(s string) string { return strings.ReplaceAll(s, name, "candidate") }
			out = append(out, item{[]string{
				"passage", mark(text), "query", mark(l.QAs[0].Query),
				"name", name, "at", strconv.Itoa(slices.Index(names, name)),
			}, one(name == l.QAs[0].Answers[0].Text), n})
		}
		return out
	}
	t.Fatalf("no task %s", dir)
	return nil
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// words splits a text into lower-case words.
func words(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '\'')
	})
}

// grams are the words, the pairs of neighbours and the number of words of a text, each behind a
// prefix.
func grams(prefix, text string) []string {
	ws := words(text)
	out := []string{prefix + "#" + strconv.Itoa(len(ws))}
	for i, w := range ws {
		out = append(out, prefix+w)
		if i > 0 {
			out = append(out, prefix+ws[i-1]+" "+w)
		}
	}
	return out
}

// views are what surface models look at. Counts of grams are features, and whether they occur at
// all.
var views = []struct {
	name     string
	features func(it item) []string
}{
	{"whole text", func(it item) []string {
		var all []string
		for i := 1; i < len(it.fields); i += 2 {
			all = append(all, it.fields[i])
		}
		return grams("", strings.Join(all, " "))
	}},
	{"each part", func(it item) []string {
		var out []string
		for i := 0; i < len(it.fields); i += 2 {
			out = append(out, grams(it.fields[i]+":", it.fields[i+1])...)
		}
		return out
	}},
	{"last part alone", func(it item) []string { return grams("", it.fields[len(it.fields)-1]) }},
	{"lengths and overlap", func(it item) []string {
		var out []string
		for i := 1; i < len(it.fields); i += 2 {
			out = append(out,
				fmt.Sprintf("words %d %d", i, len(words(it.fields[i]))),
				fmt.Sprintf("bytes %d %d", i, len(it.fields[i])))
			for j := 1; j < i; j += 2 {
				common := [2]int{}
				for _, g := range slices.Compact(slices.Sorted(slices.Values(grams("", it.fields[i])))) {
					if slices.Contains(grams("", it.fields[j]), g) && g[0] != '#' {
						common[one(strings.Contains(g, " "))]++
					}
				}
				for k, c := range common {
					out = append(out, fmt.Sprintf("common %d %d %d %d", i, j, k, c))
				}
			}
		}
		return out
	}},
}

// vector is a sparse feature vector.
type vector struct {
	at    []int
	value []float64
}

// vectors numbers the features of all examples: each count, and each presence.
func vectors(all []item, features func(item) []string, index map[string]int) []vector {
	out := make([]vector, len(all))
	for n, it := range all {
		count := map[string]float64{}
		fs := features(it)
		for _, f := range fs {
			count[f]++
		}
		for _, f := range slices.Compact(slices.Sorted(slices.Values(fs))) {
			for _, kind := range []string{"count ", "presence "} {
				i, ok := index[kind+f]
				if !ok {
					i = len(index)
					index[kind+f] = i
				}
				v := 1.0
				if kind == "count " {
					v = count[f]
				}
				out[n].at, out[n].value = append(out[n].at, i), append(out[n].value, v)
			}
		}
	}
	return out
}

// logistic is multinomial logistic regression, trained by AdaGrad.
type logistic struct {
	classes int
	weights []float64 // feature by class
}

func (m *logistic) scores(x vector) []float64 {
	s := make([]float64, m.classes)
	for k, i := range x.at {
		if (i+1)*m.classes > len(m.weights) {
			continue // never seen in training
		}
		for c := range s {
			s[c] += m.weights[i*m.classes+c] * x.value[k]
		}
	}
	return s
}

func train(xs []vector, ys []int, classes, features int) *logistic {
	const rate, decay, epochs = 0.1, 1e-4, 10
	m := &logistic{classes, make([]float64, features*classes)}
	squares := make([]float64, len(m.weights))
	for range epochs {
		for n, x := range xs {
			p := m.scores(x)
			top, sum := slices.Max(p), 0.0
			for c := range p {
				p[c] = math.Exp(p[c] - top)
				sum += p[c]
			}
			for c := range p {
				d := p[c]/sum - float64(one(ys[n] == c))
				for k, i := range x.at {
					w := i*classes + c
					g := d*x.value[k] + decay*m.weights[w]
					squares[w] += g * g
					m.weights[w] -= rate * g / math.Sqrt(squares[w]+1e-9)
				}
			}
		}
	}
	return m
}

// accuracy is the share of items, or of groups, that the model gets right, and their number. Within
// a group the item counts that is most likely the right one.
func (m *logistic) accuracy(xs []vector, its []item) (share float64, n int) {
	right := 0
	for i := 0; i < len(its); n++ {
		if its[i].group < 0 {
			s := m.scores(xs[i])
			right += one(slices.Index(s, slices.Max(s)) == its[i].class)
			i++
			continue
		}
		best, bestScore := 0, math.Inf(-1)
		group := its[i].group
		for ; i < len(its) && its[i].group == group; i++ {
			if s := m.scores(xs[i]); s[1]-s[0] > bestScore {
				best, bestScore = i, s[1]-s[0]
			}
		}
		right += its[best].class
	}
	return float64(right) / float64(n), n
}

// TestSurfaceTellsNothing shows that words, pairs of words, lengths and overlaps do not tell the
// labels: logistic regression on them is as good as guessing, on a fresh and larger sample of each
// task.
func TestSurfaceTellsNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	chances := map[string]float64{"CB": 1. / 3, "ReCoRD": 1. / 4}
	fsys := mini.New(77, mini.Sizes{Train: 1500, Val: 2000, Test: 1})
	for _, name := range dataset.Tasks() {
		task, err := dataset.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chance, ok := chances[task.Dir()]
			if !ok {
				chance = 1. / 2
			}
			learn, judge := items(t, fsys, task.Dir(), "train"), items(t, fsys, task.Dir(), "val")
			ys, classes := make([]int, len(learn)), 0
			for i, it := range learn {
				ys[i] = it.class
				classes = max(classes, it.class+1)
			}
			for _, view := range views {
				index := map[string]int{}
				xs := vectors(learn, view.features, index)
				m := train(xs, ys, classes, len(index))
				fit, _ := m.accuracy(xs, learn)
				got, n := m.accuracy(vectors(judge, view.features, index), judge)
				band := 3.3 * math.Sqrt(chance*(1-chance)/float64(n)) // one in a thousand is outside
				t.Logf("%-20s %.1f%% of %d right (%.1f%% in training), chance %.1f%% ± %.1f",
					view.name, 100*got, n, 100*fit, 100*chance, 100*band)
				if math.Abs(got-chance) > band {
					t.Errorf("%s: %.1f%% right, want %.1f%% ± %.1f: the surface tells something",
						view.name, 100*got, 100*chance, 100*band)
				}
			}
		})
	}
}

// A surface that tells the label must be found out: the same model on examples with a planted word.
func TestSurfaceModelLearns(t *testing.T) {
	fsys := mini.New(78, mini.Sizes{Train: 1500, Val: 1000, Test: 1})
	learn, judge := items(t, fsys, "RTE", "train"), items(t, fsys, "RTE", "val")
	ys := make([]int, len(learn))
	for _, its := range [][]item{learn, judge} {
		for i := range its {
			if i%2 == 0 && its[i].class == 1 {
				its[i].fields[3] += " Indeed."
			}
		}
	}
	for i, it := range learn {
		ys[i] = it.class
	}
	index := map[string]int{}
	m := train(vectors(learn, views[1].features, index), ys, 2, len(index))
	if got, _ := m.accuracy(vectors(judge, views[1].features, index), judge); got < 0.65 {
		t.Errorf("a word in half of one class's texts brings %.1f%%, want at least 65%%: the model does not learn",
			100*got)
	}
}
