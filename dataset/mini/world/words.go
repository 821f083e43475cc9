package world

import (
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// The inventory. Things begin with a consonant, so that "a" is always the article, and none is also an ambiguous word.
var (
	things = []string{
		"ball", "cup", "doll", "drum", "fan", "hat", "jug", "key", "kite", "lamp", "map", "net", "rope", "sock", "tent", "vase", "wig",
	}
	colors = []string{"red", "blue", "green", "white", "pink", "black", "gold", "brown"}
	places = []string{"park", "barn", "shop", "yard", "hall", "cave", "tower", "mill"}
)

// Pick returns one of the choices.
func Pick[T any](r *prng.Source, choices []T) T { return choices[r.IntN(len(choices))] }

// Distinct returns n different choices in random order.
func Distinct[T any](r *prng.Source, choices []T, n int) []T {
	out := make([]T, 0, n)
	var taken [64]bool
	for len(out) < n {
		if i := r.IntN(len(choices)); !taken[i] {
			taken[i] = true
			out = append(out, choices[i])
		}
	}
	return out
}

// Fill replaces the placeholders of a template, such as {P}; values holds each letter before what it stands for.
func Fill(template string, values ...string) string {
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
