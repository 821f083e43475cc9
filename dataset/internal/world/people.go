package world

import (
	"fmt"
	"slices"

	"github.com/dptune/dpt/dataset/internal/prng"
)

var (
	women = []string{
		"Ada", "Bea", "Cleo", "Dora", "Eve", "Fay", "Gwen", "Hana", "Ivy", "Jane", "Kim", "Lucy",
		"Mia", "Nell", "Olga", "Pam", "Ruth", "Sue", "Tess", "Una", "Vera", "Wyn", "Yara", "Zoe",
	}
	men = []string{
		"Abe", "Bob", "Carl", "Dan", "Eli", "Finn", "Gus", "Hugo", "Ian", "Jeff", "Ken", "Leo",
		"Max", "Nick", "Otto", "Pete", "Ray", "Sam", "Tom", "Ulf", "Vic", "Walt", "Yuri", "Zack",
	}
	people = slices.Concat(women, men)
)

// People returns all names.
func People() []string { return slices.Clone(people) }

// Side is the purpose of a text: tuning or pre-training. One pair of people in eight, drawn once,
// is reserved. Two people of a reserved pair never meet in a text for pre-training, and every text
// for tuning has such a pair. So no text of one side contains a text of the other.
type Side int

const (
	Tuning Side = iota
	Pretraining
)

// reservedShare is the inverse of the share of pairs of people that are reserved for tuning.
const reservedShare = 8

// reserved[i][j] reports whether persons i and j are a reserved pair. It is symmetric.
var reserved = func() (table [][]bool) {
	r := prng.New("dpt/mini/world/reserved")
	for range people {
		table = append(table, make([]bool, len(people)))
	}
	for i := range people {
		for j := range i {
			table[i][j] = r.IntN(reservedShare) == 0
			table[j][i] = table[i][j]
		}
	}
	return table
}()

// Reserved reports whether two people of the world are a reserved pair.
func Reserved(a, b string) bool {
	i, j := slices.Index(people, a), slices.Index(people, b)
	return i >= 0 && j >= 0 && reserved[i][j]
}

// Cast draws n different people, 2 to 6, in random order.
func (s Side) Cast(r *prng.Source, n int) []string { return s.cast(r, n, 0, len(people)) }

// CastAlike draws n different people, 2 to 6, with the same pronoun.
func (s Side) CastAlike(r *prng.Source, n int) []string {
	if r.IntN(2) == 0 {
		return s.cast(r, n, 0, len(women))
	}
	return s.cast(r, n, len(women), len(people))
}

// cast draws from people[from:to].
func (s Side) cast(r *prng.Source, n, from, to int) []string {
	if n < 2 || n > 6 {
		panic(fmt.Sprintf("world: a cast of %d people, want 2 to 6", n))
	}
	var is [6]int
	for {
		chosen := is[:0]
		pair := false
		// After 64 draws, those chosen have too many reserved pairs: begin again.
		for range 64 {
			p := from + r.IntN(to-from)
			if slices.Contains(chosen, p) {
				continue
			}
			meets := slices.ContainsFunc(chosen, func(q int) bool { return reserved[p][q] })
			if s == Pretraining && meets {
				continue
			}
			pair = pair || meets
			if chosen = append(chosen, p); len(chosen) == n {
				break
			}
		}
		if len(chosen) < n || s == Tuning && !pair {
			continue
		}
		names := make([]string, n)
		for i, p := range chosen {
			names[i] = people[p]
		}
		return names
	}
}

// Pronoun is "she" or "he".
func Pronoun(person string) string {
	if slices.Contains(women, person) {
		return "she"
	}
	return "he"
}
