package corpus

import (
	"slices"
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

// Keys returns pair i of the seed's fifth stream, and the name of what it teaches: to find a word
// in a text and what stands beside it, or to judge whether two words are the same. Words have few
// letters, so that there is nothing else to learn. All other skills build on this. The bounds are
// those of Several.
func Keys(seed, i uint64) (Pair, string) {
	r := prng.New("dpt/mini/pretrain/keys", seed, i)
	switch r.IntN(6) {
	case 0:
		return equalWords(r), "keys-equal"
	case 1, 2:
		return judgeKeys(r), "keys-judge"
	}
	return lookUp(r), "keys-ask"
}

// shortWords draws n different words: one to three letters or digits each, or invented ones.
func shortWords(r *prng.Source, n int) []string {
	if r.IntN(4) == 0 {
		return distinct(r, n, 2)
	}
	size := min(1+r.IntN(3), 1+r.IntN(3))
	var out []string
	for len(out) < n {
		b := make([]byte, size)
		for i := range b {
			b[i] = keySigns[r.IntN(len(keySigns))]
		}
		if w := string(b); isAllowedWord(w) && !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}

const keySigns = letters + "3456789"

// keyValues are keys and their values: keys[i] has values[i].
type keyValues struct{ keys, values []string }

func newKeyValues(r *prng.Source) keyValues {
	n := 2 + r.IntN(6)
	return keyValues{shortWords(r, n), shortWords(r, n)}
}

// form is a way of writing keys and values.
type form struct {
	equals  string // between a key and its value
	between string // between two pairs
	then    string // between the pairs and the questions
}

func newForm(r *prng.Source) form {
	f := form{
		equals:  world.Pick(r, []string{"=", "=", " ", "-", " is "}),
		between: world.Pick(r, []string{" ", ", ", ". ", "; "}),
	}
	if f.equals == " " && f.between == " " {
		f.between = ", "
	}
	f.then = world.Pick(r, []string{": ", " | ", f.between})
	return f
}

func (f form) write(t keyValues) string {
	parts := make([]string, len(t.keys))
	for i := range parts {
		parts[i] = t.keys[i] + f.equals + t.values[i]
	}
	return strings.Join(parts, f.between) + f.then
}

// lookUp writes some of the pairs again, with signs in place of their values or of their keys, and
// wants what each sign stands for.
func lookUp(r *prng.Source) Pair {
	t, f := newKeyValues(r), newForm(r)
	backward, signs := r.IntN(4) == 0, r.Perm(len(slotSigns))
	var asked, target []string
	for n := range 1 + r.IntN(len(t.keys)) {
		i, sign := r.IntN(len(t.keys)), slotSigns[signs[n]:][:1]
		key, value, wanted := t.keys[i], sign, t.values[i]
		if backward {
			key, value, wanted = sign, t.values[i], t.keys[i]
		}
		asked, target = append(asked, key+f.equals+value), append(target, sign+wanted)
	}
	return Pair{f.write(t) + strings.Join(asked, f.between), strings.Join(target, "")}
}

// judgeKeys writes some of the keys again, each with its own value or with that of another key, and
// asks which are right.
func judgeKeys(r *prng.Source) Pair {
	t, f := newKeyValues(r), newForm(r)
	n := len(t.keys)
	var claims, answers []string
	for range 1 + r.IntN(n) {
		i := r.IntN(n)
		j := i
		if r.IntN(2) == 0 {
			j = (i + 1 + r.IntN(n-1)) % n
		}
		claims, answers = append(claims, t.keys[i]+f.equals+t.values[j]), append(answers, yesNo[verdict(i == j)])
	}
	asked, target := numbered(r, claims, answers)
	return Pair{f.write(t) + asked, target}
}

// equalWords asks whether two words are the same, or whether a word is in a list.
func equalWords(r *prng.Source) Pair {
	if r.IntN(2) == 0 { // is a word in the list?
		n := 2 + r.IntN(6)
		words := shortWords(r, 2*n)
		var claims, answers []string
		for range 1 + r.IntN(6) {
			i := r.IntN(2 * n)
			claims, answers = append(claims, words[i]), append(answers, yesNo[verdict(i < n)])
		}
		asked, target := numbered(r, claims, answers)
		return Pair{strings.Join(words[:n], " ") + " | " + asked, target}
	}
	n := 1 + r.IntN(6)
	words := shortWords(r, 2*n)
	var claims, answers []string
	between := world.Pick(r, []string{" ", ", ", "/", " = "})
	for i := range n {
		one, other := words[2*i], words[2*i+1]
		same := r.IntN(2) == 0
		if same {
			other = one
		}
		claims, answers = append(claims, one+between+other), append(answers, []string{"same", "other"}[verdict(same)])
	}
	asked, target := numbered(r, claims, answers)
	return Pair{asked, target}
}
