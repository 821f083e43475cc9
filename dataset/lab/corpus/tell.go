package corpus

import (
	"slices"
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

// formNames name the form of an event that is wanted.
var formNames = []string{"doer first", "by doer", "other verb"}

func tellEvent(r *prng.Source) Pair {
	who := side.Cast(r, 2)
	e := world.NewEvent(r, who[0], who[1])
	from, to := world.OtherForms(r)
	return Pair{formNames[to] + ": " + e.Tell(from) + ".", e.Tell(to) + "."}
}

func tellComparison(r *prng.Source) Pair {
	who := side.Cast(r, 2)
	c := world.NewComparison(r, who[0], who[1])
	return Pair{"opposite: " + c.Tell() + ".", c.Opposite().Tell() + "."}
}

func tellReferent(r *prng.Source) Pair {
	who := side.CastAlike(r, 2)
	t := world.NewTwin(r, who)
	return Pair{"no pronoun: " + t.Tell(world.Pronoun(who[0])), t.Tell(t.Referent())}
}

// blanks stand for a name to find.
var blanks = []string{"___", "...", "???", "XX", "(who)", "[]"}

// fillEvent tells one of two events again and leaves a name out of it, and sometimes the other one
// too. It may list the four names.
func fillEvent(r *prng.Source) Pair {
	who := side.Cast(r, 4)
	events := [2]world.Event{world.NewEvent(r, who[0], who[1]), world.NewEvent(r, who[2], who[3])}
	if events[0].SameDeed(events[1]) {
		return fillEvent(r)
	}
	text := events[0].Tell(world.AnyForm(r)) + ". " + events[1].Tell(world.AnyForm(r)) + "."
	e := events[r.IntN(2)]
	slices.Sort(who) // for the list of names
	blank := world.Pick(r, blanks)
	name, missing := e.Agent, e
	missing.Agent = blank
	if r.IntN(2) == 0 {
		name, missing = e.Patient, e
		missing.Patient = blank
	}
	if r.IntN(2) == 0 {
		if missing.Agent == blank {
			missing.Patient = "somebody"
		} else {
			missing.Agent = "somebody"
		}
	}
	if r.IntN(3) == 0 {
		text = world.Lead(r) + " " + text
	}
	parts := []string{text, world.Capital(missing.Tell(world.AnyForm(r))) + "."}
	if r.IntN(3) == 0 {
		parts = append(parts, strings.Join(who, ", "))
	}
	return Pair{join(r, parts...), name}
}
