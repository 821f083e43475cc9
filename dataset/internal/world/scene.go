package world

import (
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// Scene is people who each have one thing. Each thing has its own color, or lies in its own place.
type Scene struct {
	Owners, Things []string // Owners[i] has Things[i]
	Values         []string // the color or the place of Things[i]
	Placed         bool     // Values are places
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

// Sentence tells of owner i.
func (s Scene) Sentence(i int) string {
	if s.Placed {
		return s.Owners[i] + " has a " + s.Things[i] + " in the " + s.Values[i] + "."
	}
	return s.Owners[i] + " has a " + s.Values[i] + " " + s.Things[i] + "."
}

// Tell tells of all owners.
func (s Scene) Tell() string {
	sentences := make([]string, len(s.Owners))
	for i := range s.Owners {
		sentences[i] = s.Sentence(i)
	}
	return strings.Join(sentences, " ")
}

// Attribution states that a thing belongs to an owner, or that it has a value (a color or a place).
// Owners and values have the numbers of their things.
type Attribution struct {
	Thing        int
	owner, value int // one of them is stated, the other is -1
}

// NewAttribution draws an attribution that is true half of the time.
func (s Scene) NewAttribution(r *prng.Source) Attribution {
	n := len(s.Things)
	a := Attribution{Thing: r.IntN(n), owner: -1, value: -1}
	of := a.Thing
	if r.IntN(2) == 0 {
		of = (of + 1 + r.IntN(n-1)) % n
	}
	if r.IntN(2) == 0 {
		a.owner = of
	} else {
		a.value = of
	}
	return a
}

// Holds reports whether the attribution is true: each thing has the owner and the value of its own
// number.
func (a Attribution) Holds() bool { return max(a.owner, a.value) == a.Thing }

// Question asks whether the attribution is true, in the style of a search query.
func (s Scene) Question(a Attribution) string {
	switch {
	case a.owner >= 0:
		return "does " + s.Owners[a.owner] + " have the " + s.Things[a.Thing]
	case s.Placed:
		return "is the " + s.Things[a.Thing] + " in the " + s.Values[a.value]
	}
	return "is the " + s.Things[a.Thing] + " " + s.Values[a.value]
}

// Statement is the attribution as a sentence without its full stop.
func (s Scene) Statement(a Attribution) string {
	switch {
	case a.owner >= 0:
		return "The " + s.Things[a.Thing] + " belongs to " + s.Owners[a.owner]
	case s.Placed:
		return "The " + s.Things[a.Thing] + " lies in the " + s.Values[a.value]
	}
	return "The " + s.Things[a.Thing] + " is " + s.Values[a.value]
}
