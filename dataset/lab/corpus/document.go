package corpus

import (
	"strconv"
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

// Document returns document i of the seed's stream: ASCII of about 60 to 400 bytes that tells facts
// of the world and what follows from them.
func Document(seed, i uint64) string {
	r := prng.New("dpt/mini/pretrain/document", seed, i)
	who := side.Cast(r, 6)
	var b strings.Builder
	scripts := false
	for n := range 2 + r.IntN(3) {
		if n > 0 {
			b.WriteByte(' ')
		}
		k := r.IntN(9)
		if k == 0 { // two scripts might be a reserved pair
			if scripts {
				k = 1 + r.IntN(8)
			}
			scripts = true
		}
		b.WriteString(paragraphs[k](r, who))
	}
	return b.String()
}

// paragraphs are the kinds of paragraph. Each tells of some of the six people of a document.
var paragraphs = [9]func(r *prng.Source, who []string) string{
	func(r *prng.Source, who []string) string {
		i, p := r.IntN(world.Scripts()), world.Pick(r, who)
		cause, effect := world.Cause(r, i), world.Effect(r, i)
		if r.IntN(2) == 0 {
			return p + " " + cause + ", so " + world.Pronoun(p) + " " + effect + "."
		}
		return p + " " + effect + " because " + world.Pronoun(p) + " " + cause + "."
	},
	func(r *prng.Source, who []string) string {
		two := world.Distinct(r, who, 2)
		e := world.NewEvent(r, two[0], two[1])
		one, other := world.OtherForms(r)
		return e.Tell(one) + world.Pick(r, []string{". So ", ", so ", ". That is: "}) + e.Tell(other) + "."
	},
	func(r *prng.Source, who []string) string {
		two := world.Distinct(r, who, 2)
		c := world.NewComparison(r, two[0], two[1])
		claim := c.Claim(r)
		for !c.Implies(claim) {
			claim = c.Claim(r)
		}
		return c.Tell() + ", so " + claim.Tell() + "."
	},
	func(r *prng.Source, who []string) string {
		two := world.Distinct(r, who, 2)
		a := world.NewAbility(r, two[0], two[1])
		ask, target := a.Ask(r.IntN(2) == 0)
		return a.Tell() + ". " + ask + " " + target + "."
	},
	func(r *prng.Source, who []string) string {
		s := world.NewScene(r, world.Distinct(r, who, 2+r.IntN(2)))
		a := s.NewAttribution(r)
		for !a.Holds() {
			a = s.NewAttribution(r)
		}
		return s.Tell() + " " + s.Statement(a) + "."
	},
	func(r *prng.Source, who []string) string {
		s := world.NewShopping(r, world.Distinct(r, who, 2))
		i := r.IntN(2)
		return s.Tell() + " " + s.Ask(i) + " A " + s.Things[i][0] + " and a " + s.Things[i][1] + "."
	},
	func(r *prng.Source, who []string) string {
		b := world.NewBeliefs(r, world.Distinct(r, who, 4))
		i := r.IntN(3)
		return b.Tell() + " " + [...]string{"Surely ", "It is not so that ", "Maybe "}[b.Stance[i]] + b.Clause(i) + "."
	},
	func(r *prng.Source, who []string) string {
		one, other := world.NewUses(r, world.Distinct(r, who, 2))
		switch r.IntN(3) {
		case 0:
			return one.Sentence + " This " + one.Word + " is a " + one.Gloss + "."
		case 1:
			return one.Sentence + " " + other.Sentence +
				" One " + one.Word + " is a " + one.Gloss + ", the other a " + other.Gloss + "."
		}
		n := code(r)
		return "The code of the " + one.Word + " is " + n + ". " + one.Sentence +
			" The code is " + n + ", page " + strconv.Itoa(r.IntN(200)) + "."
	},
	func(r *prng.Source, who []string) string {
		for {
			two := world.Distinct(r, who, 2)
			if world.Pronoun(two[0]) != world.Pronoun(two[1]) {
				if r.IntN(4) > 0 {
					continue
				}
				t := world.NewTwin(r, two)
				return t.Tell(t.Referent())
			}
			t := world.NewTwin(r, two)
			return t.Tell(world.Pronoun(two[0])) + " So " + t.Referent() + " " + t.Reason() + "."
		}
	},
}
