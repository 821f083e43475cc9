package world

import (
	"fmt"
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// The inventory. Things begin with a consonant, so that "a" is always the article, and none of them
// is an ambiguous word.
var (
	things = []string{
		"ball", "cup", "doll", "drum", "fan", "hat", "jug", "key", "kite", "lamp", "map", "net", "rope", "sock", "tent",
		"vase", "wig",
	}
	colors = []string{"red", "blue", "green", "white", "pink", "black", "gold", "brown"}
	places = []string{"park", "barn", "shop", "yard", "hall", "cave", "tower", "mill"}
)

// Pick returns one of the choices.
func Pick[T any](r *prng.Source, choices []T) T { return choices[r.IntN(len(choices))] }

// Distinct returns n different ones of at most 64 choices in random order. It panics if there are
// fewer than n choices or more than 64.
func Distinct[T any](r *prng.Source, choices []T, n int) []T {
	var taken [64]bool
	if n > len(choices) || len(choices) > len(taken) {
		panic(fmt.Sprintf("world: %d of %d choices, want at most as many as there are, of at most %d",
			n, len(choices), len(taken)))
	}
	out := make([]T, 0, n)
	for len(out) < n {
		if i := r.IntN(len(choices)); !taken[i] {
			taken[i] = true
			out = append(out, choices[i])
		}
	}
	return out
}

// fill replaces the placeholders of a template, such as {P}. values alternates between letters and
// their replacements.
func fill(template string, values ...string) string {
	var b strings.Builder
	b.Grow(len(template) + 16)
	for {
		before, rest, found := strings.Cut(template, "{")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		letter, after, _ := strings.Cut(rest, "}")
		for i := 0; i < len(values); i += 2 {
			if values[i] == letter {
				b.WriteString(values[i+1])
			}
		}
		template = after
	}
}

// Capital makes a text's first letter upper case.
func Capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
