package corpus

import (
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

// severalKeys gives three to eight keys with their values and asks for some of the values.
func severalKeys(r *prng.Source) Pair {
	n := 3 + r.IntN(6)
	values := labels(r, n)
	keys := labels(r, n)
	var wanted, targets []string
	for range 2 + r.IntN(5) {
		i := r.IntN(n)
		wanted, targets = append(wanted, keys[i]), append(targets, values[i])
	}
	return Pair{mapping(r, keys, values) + strings.Join(wanted, " "), strings.Join(targets, " ")}
}

// severalSenses asks for the gloss of each of four uses of two words.
func severalSenses(r *prng.Source) Pair {
	who := side.Cast(r, 4)
	a, b := world.NewUses(r, who[:2])
	c, d := world.NewUses(r, who[2:])
	uses := []world.Use{a, b, c, d}
	var texts, targets []string
	for _, i := range r.Perm(len(uses)) {
		texts, targets = append(texts, uses[i].Sentence), append(targets, uses[i].Gloss)
	}
	return Pair{strings.Join(texts, " "), strings.Join(targets, "; ")}
}

// severalReferents asks whom each of two pronouns stands for.
func severalReferents(r *prng.Source) Pair {
	who := side.CastAlike(r, 4)
	one, other := world.NewTwin(r, who[:2]), world.NewTwin(r, who[2:])
	pronoun := world.Pronoun(who[0])
	marked := world.Pick(r, []string{"[?]", "<?>", "(?)", "_?_", "#?#"})
	pronoun = marked[:1] + pronoun + marked[2:]
	ask := world.Pick(r, []string{"who? ", "name: ", "ref ", "which one: ", "X = ", ""})
	return Pair{ask + one.Tell(pronoun) + " " + other.Tell(pronoun), one.Referent() + " " + other.Referent()}
}

// severalScripts tells one side of a script for each of two people, and asks who goes with parts of
// the other side.
func severalScripts(r *prng.Source) Pair {
	first, second := side.Scripts(r)
	who := side.Cast(r, 2)
	scripts := []int{first, second}
	tell, ask := sides(r)
	text := who[0] + " " + tell(r, first) + ". " + who[1] + " " + tell(r, second) + "."
	var questions, targets []string
	for range 2 + r.IntN(2) {
		i := r.IntN(2)
		questions, targets = append(questions, "Who "+ask(r, scripts[i])+"?"), append(targets, who[i])
	}
	return Pair{join(r, text, strings.Join(questions, " ")), strings.Join(targets, " ")}
}

// severalBlanks tells two events again with blanks for all names.
func severalBlanks(r *prng.Source) Pair {
	who := side.Cast(r, 4)
	events := []world.Event{world.NewEvent(r, who[0], who[1]), world.NewEvent(r, who[2], who[3])}
	if events[0].SameDeed(events[1]) {
		return severalBlanks(r)
	}
	text := events[0].Tell(world.AnyForm(r)) + ". " + events[1].Tell(world.AnyForm(r)) + "."
	blank := world.Pick(r, blanks)
	var signs []int // of slotSigns, one for each blank; nil: all blanks look alike
	if r.IntN(2) == 0 {
		signs = r.Perm(len(slotSigns))
	}
	var again, targets []string
	for _, i := range r.Perm(2) {
		e := events[i]
		form := world.AnyForm(r)
		first, second := e.Agent, e.Patient
		if told := e.Tell(form); strings.Index(told, second) < strings.Index(told, first) {
			first, second = second, first
		}
		one, two := blank, blank
		if signs != nil {
			one, two = slotSigns[signs[len(targets)]:][:1], slotSigns[signs[len(targets)+1]:][:1]
			first, second = one+first, two+second
		}
		targets = append(targets, first, second)
		if strings.HasSuffix(first, e.Agent) {
			e.Agent, e.Patient = one, two
		} else {
			e.Agent, e.Patient = two, one
		}
		again = append(again, e.Tell(form)+".")
	}
	if signs != nil {
		return Pair{join(r, text, strings.Join(again, " ")), strings.Join(targets, "")}
	}
	return Pair{join(r, text, strings.Join(again, " ")), strings.Join(targets, " ")}
}
