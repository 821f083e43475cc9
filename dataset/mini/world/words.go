package world

import (
	"slices"
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// The inhabitants and the inventory of the world. Things begin with a consonant, so that "a" is always the article.
var (
	women  = []string{"Ann", "Eva", "Ida", "Kim", "Mia", "Nora", "Ruth", "Tess", "Lucy", "Jane"}
	men    = []string{"Bob", "Carl", "Finn", "Gus", "Hal", "Leo", "Otto", "Paul", "Ned", "Tom"}
	people = slices.Concat(women, men)

	surnames = []string{"Lee", "Fox", "Hill", "Wood", "Reed", "Cole", "Bell", "Nash"}
	towns    = []string{"Oakton", "Redby", "Milford", "Westor", "Dunvale", "Larkham"}
	colors   = []string{"red", "blue", "green", "black", "white", "brown"}
	things   = []string{"ball", "boat", "book", "cup", "hat", "kite", "lamp", "ring", "drum", "coat", "bike", "clock"}
	places   = []string{"in the park", "at the lake", "on the hill", "in the shed", "on the farm", "in the shop"}
	days     = []string{"Monday", "Tuesday", "Friday", "Sunday"}
)

// pick returns one of the choices.
func pick[T any](r *prng.Source, choices []T) T { return choices[r.IntN(len(choices))] }

// distinct returns n different choices in random order.
func distinct[T any](r *prng.Source, choices []T, n int) []T {
	out := make([]T, n)
	for i, j := range r.Perm(len(choices))[:n] {
		out[i] = choices[j]
	}
	return out
}

// sexes returns the women and the men in random order.
func sexes(r *prng.Source) (one, other []string) {
	if r.IntN(2) == 0 {
		return women, men
	}
	return men, women
}

// fill replaces the placeholders of a template, such as {P}; names holds each letter before what it stands for.
func fill(template string, names ...string) string {
	for i := 0; i < len(names); i += 2 {
		template = strings.ReplaceAll(template, "{"+names[i]+"}", names[i+1])
	}
	return template
}

// pronoun is how a person is called the second time.
func pronoun(person string) string {
	if slices.Contains(women, person) {
		return "she"
	}
	return "he"
}

// lower makes a text lower case, as BoolQ's questions are.
func lower(s string) string { return strings.ToLower(s) }
