package world

import (
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/dataset/internal/prng"
)

func TestCast(t *testing.T) {
	r := prng.New("test")
	for range 3000 {
		n := 2 + r.IntN(5)
		for _, side := range []Side{Tuning, Pretraining} {
			for _, who := range [][]string{side.Cast(r, n), side.CastAlike(r, n)} {
				pairs := 0
				for i, p := range who {
					for _, q := range who[:i] {
						if p == q {
							t.Fatalf("%v has %s twice", who, p)
						}
						if Reserved(p, q) {
							pairs++
						}
					}
				}
				if len(who) != n || (pairs > 0) != (side == Tuning) {
					t.Fatalf("side %d has a cast %v with %d reserved pairs, want %d people", side, who, pairs, n)
				}
			}
			alike := side.CastAlike(r, n)
			if slices.ContainsFunc(alike, func(p string) bool { return Pronoun(p) != Pronoun(alike[0]) }) {
				t.Fatalf("%v have different pronouns", alike)
			}
		}
	}
}

func TestReservedShare(t *testing.T) {
	pairs, all := 0, 0
	for i, p := range people {
		if Reserved(p, p) {
			t.Errorf("%s is a pair alone", p)
		}
		for _, q := range people[:i] {
			all++
			if Reserved(p, q) {
				pairs++
			}
			if Reserved(p, q) != Reserved(q, p) {
				t.Errorf("%s and %s are a pair in one order alone", p, q)
			}
		}
	}
	if pairs*reservedShare < all*2/3 || pairs*reservedShare > all*3/2 {
		t.Errorf("%d of %d pairs are reserved, want about one in %d", pairs, all, reservedShare)
	}
}

// Names must be told apart early, and no word may have two meanings unless it is meant to.
func TestWordsAreDistinct(t *testing.T) {
	starts := map[string]string{}
	for _, p := range people {
		if other := starts[p[:2]]; other != "" {
			t.Errorf("%s and %s begin alike", p, other)
		}
		starts[p[:2]] = p
	}
	seen := map[string]bool{}
	use := func(words ...string) {
		for _, w := range words {
			if seen[w] {
				t.Errorf("%q has two uses", w)
			}
			seen[w] = true
		}
	}
	use(things...)
	use(colors...)
	use(places...)
	use(skills...)
	use(deeds...)
	for _, s := range scales {
		use(s[:]...)
	}
	for _, s := range attitudes {
		use(s...)
	}
	for _, a := range ambiguousWords {
		use(a.word, a.gloss[0], a.gloss[1])
	}
	for _, s := range scripts {
		use(s.causes[:]...)
		use(s.effects[:]...)
	}
	for _, m := range motives {
		use(m.active, m.passive, m.whyA, m.whyB)
	}
}

// Common words would tell what belongs together.
func TestNoTellingRepetition(t *testing.T) {
	function := strings.Fields("{P} a an the of in on by with at to from into and is was one for one's up out off")
	content := func(s string) []string {
		return slices.DeleteFunc(strings.Fields(strings.TrimSuffix(s, ".")), func(w string) bool {
			return slices.Contains(function, w) || strings.HasPrefix(w, "[")
		})
	}
	common := func(where, a, b string) {
		for _, w := range content(a) {
			if slices.Contains(content(b), w) {
				t.Errorf("%s: %q and %q have %q in common", where, a, b, w)
			}
		}
	}
	for _, s := range scripts {
		for _, c := range s.causes {
			for _, e := range s.effects {
				common("script", c, e)
			}
		}
	}
	for _, a := range ambiguousWords {
		for _, sense := range a.senses {
			for i, s := range sense {
				if strings.Count(s, "["+a.word+"]") != 1 || !strings.HasPrefix(s, "{P} ") ||
					strings.Count(s, "{") != 1 {
					t.Errorf("%q does not begin with a person or does not have [%s] once", s, a.word)
				}
				for _, other := range sense[:i] {
					common(a.word, s, other)
				}
			}
		}
	}
}

func TestDistinctRefuses(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("three of two choices are drawn, want a panic")
		}
	}()
	Distinct(prng.New("test"), []int{1, 2}, 3)
}
