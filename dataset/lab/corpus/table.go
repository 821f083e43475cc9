package corpus

import (
	"slices"
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

// table is rows of values, told one after another in the same words. A question names one value and
// wants another one of the same row; a claim names two values that are of one row or not. People,
// things, colors and places are among the values, but the words around them mean nothing. All that
// helps is to find a word of the question in the text, and what stands near it. A scene, a shopping
// trip and beliefs ask for that too, among other things.
type table struct {
	columns [][]string // by column, then by row
	order   []int      // the columns in the order in which a row tells them
	words   []string   // words[i] stands before the i-th value of a row
	between string     // stands between rows
}

// Table returns pair i of the seed's fourth stream, which asks one to five questions about a table,
// and the name of what it teaches. The bounds are those of Several.
func Table(seed, i uint64) (Pair, string) {
	r := prng.New("dpt/mini/pretrain/table", seed, i)
	t := newTable(r)
	from, to := r.IntN(len(t.columns)), r.IntN(len(t.columns)-1)
	if to >= from {
		to++
	}
	n := 1 + r.IntN(min(5, 2*len(t.columns[0])))
	if r.IntN(2) == 0 {
		return t.ask(r, from, to, n), "table-ask"
	}
	return t.judge(r, from, to, n), "table-judge"
}

func newTable(r *prng.Source) table {
	rows := 2 + r.IntN(3)
	s := world.NewScene(r, side.Cast(r, rows))
	all := [][]string{s.Owners, s.Things, s.Values, labels(r, rows), distinct(r, rows, 2), distinct(r, rows, 2)}
	if r.IntN(2) == 0 {
		all = all[:3]
	}
	t := table{
		columns: world.Distinct(r, all, 2+r.IntN(2)),
		between: world.Pick(r, []string{". ", ". ", "; ", ", ", " / "}),
	}
	t.order = r.Perm(len(t.columns))
	t.words = make([]string, len(t.columns))
	for i := range t.words {
		switch {
		case i == 0 && r.IntN(4) > 0:
		case r.IntN(3) == 0:
			t.words[i] = invented(r, 2)
		case r.IntN(3) > 0:
			t.words[i] = world.Pick(r, fillers)
		}
	}
	return t
}

// fillers are small words that mean nothing here.
var fillers = []string{
	"has", "is", "a", "the", "with", "of", "on", "by", "and", "to", "near", "sees", "likes", "for", "at", "has a", "in",
	"=", "-",
}

// distinct draws n different invented words.
func distinct(r *prng.Source, n, syllables int) []string {
	out := make([]string, 0, n)
	for len(out) < n {
		if w := invented(r, syllables); !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}

// row writes some values, by their columns, in the order of the table. A column without a value is
// left out together with the word before it.
func (t table) row(values map[int]string) string {
	var parts []string
	for i, c := range t.order {
		v, ok := values[c]
		if !ok {
			continue
		}
		if w := t.words[i]; w != "" && (i == 0 || len(parts) > 0) {
			parts = append(parts, w)
		}
		parts = append(parts, v)
	}
	return strings.Join(parts, " ")
}

func (t table) text() string {
	rows := make([]string, len(t.columns[0]))
	for i := range rows {
		values := map[int]string{}
		for c := range t.columns {
			values[c] = t.columns[c][i]
		}
		rows[i] = t.row(values)
	}
	return strings.Join(rows, t.between) + strings.TrimRight(t.between, " ")
}

// ask names values of column from and wants those of column to. The questions are rows with a
// blank, or the values alone.
func (t table) ask(r *prng.Source, from, to, n int) Pair {
	// With slots, each blank is a sign of its own that the target repeats.
	slots := r.IntN(3) > 0
	signs := r.Perm(len(slotSigns))
	blank := world.Pick(r, []string{"?", "___", "who", "what", "..", "[]"})
	bare := !slots && r.IntN(3) == 0
	var target strings.Builder
	var questions, targets []string
	for range n {
		i := r.IntN(len(t.columns[0]))
		q := t.columns[from][i]
		if slots {
			blank = slotSigns[signs[len(questions)]:][:1]
			target.WriteString(blank + t.columns[to][i])
		}
		if !bare {
			q = t.row(map[int]string{from: q, to: blank})
		}
		questions, targets = append(questions, q), append(targets, t.columns[to][i])
	}
	if slots {
		return Pair{join(r, t.text(), strings.Join(questions, t.between)), target.String()}
	}
	separator := ", "
	if bare {
		separator = " "
	}
	return Pair{join(r, t.text(), strings.Join(questions, separator)), strings.Join(targets, " ")}
}

// judge claims that a value of column from and one of column to are of one row.
func (t table) judge(r *prng.Source, from, to, n int) Pair {
	names, head := yesNo, "yes or no: "
	if r.IntN(2) == 0 {
		names = labels(r, len(yesNo))
		head = mapping(r, yesNo, names)
	}
	rows := len(t.columns[0])
	var claims, targets []string
	for range n {
		i := r.IntN(rows)
		j := i
		if r.IntN(2) == 0 {
			j = (i + 1 + r.IntN(rows-1)) % rows
		}
		claims = append(claims, t.row(map[int]string{from: t.columns[from][i], to: t.columns[to][j]}))
		targets = append(targets, names[verdict(i == j)])
	}
	if r.IntN(3) > 0 {
		asked, target := numbered(r, claims, targets)
		return Pair{head + join(r, t.text(), asked), target}
	}
	return Pair{head + join(r, t.text(), list(r, claims)), strings.Join(targets, " ")}
}
