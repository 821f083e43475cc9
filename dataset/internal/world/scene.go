package world

import (
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// Scene is people who have a thing each, every thing of its own color, or in its own place.
type Scene struct {
	Owners, Things []string
	Values         []string // colors, or places
	Placed         bool
}

// NewScene draws a scene of the people.
func NewScene(r *prng.Source, owners []string) Scene {
	s := Scene{Owners: owners, Things: Distinct(r, things, len(owners)), Placed: r.IntN(2) == 0}
	if s.Placed {
		s.Values = Distinct(r, places, len(owners))
	} else {
		s.Values = Distinct(r, colors, len(owners))
	}
	return s
}

// Sentence tells of one owner.
func (s Scene) Sentence(i int) string {
	if s.Placed {
		return s.Owners[i] + " has a " + s.Things[i] + " in the " + s.Values[i] + "."
	}
	return s.Owners[i] + " has a " + s.Values[i] + " " + s.Things[i] + "."
}

// Tell tells all of it.
func (s Scene) Tell() string {
	sentences := make([]string, len(s.Owners))
	for i := range s.Owners {
		sentences[i] = s.Sentence(i)
	}
	return strings.Join(sentences, " ")
}

// Attribution says something of one thing that may be true of another: that owner Owner has it, or that it has value Value.
// The one not asked about is -1.
type Attribution struct{ Thing, Owner, Value int }

// NewAttribution draws an attribution; it is as likely true as not.
func (s Scene) NewAttribution(r *prng.Source) Attribution {
	n := len(s.Things)
	a := Attribution{Thing: r.IntN(n), Owner: -1, Value: -1}
	of := a.Thing
	if r.IntN(2) == 0 {
		of = (of + 1 + r.IntN(n-1)) % n
	}
	if r.IntN(2) == 0 {
		a.Owner = of
	} else {
		a.Value = of
	}
	return a
}

// Holds tells whether the attribution is true: each thing has the owner and the value of its own number.
func (a Attribution) Holds() bool { return max(a.Owner, a.Value) == a.Thing }

// Question asks whether the attribution is true, as one types it into a search box.
func (s Scene) Question(a Attribution) string {
	switch {
	case a.Owner >= 0:
		return "does " + s.Owners[a.Owner] + " have the " + s.Things[a.Thing]
	case s.Placed:
		return "is the " + s.Things[a.Thing] + " in the " + s.Values[a.Value]
	}
	return "is the " + s.Things[a.Thing] + " " + s.Values[a.Value]
}

// Statement says the same.
func (s Scene) Statement(a Attribution) string {
	switch {
	case a.Owner >= 0:
		return "The " + s.Things[a.Thing] + " belongs to " + s.Owners[a.Owner]
	case s.Placed:
		return "The " + s.Things[a.Thing] + " lies in the " + s.Values[a.Value]
	}
	return "The " + s.Things[a.Thing] + " is " + s.Values[a.Value]
}
