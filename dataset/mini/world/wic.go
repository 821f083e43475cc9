package world

import (
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
)

type wic struct {
	Word      string  `json:"word"`
	Sentence1 string  `json:"sentence1"`
	Sentence2 string  `json:"sentence2"`
	Idx       int     `json:"idx"`
	Label     *bool   `json:"label,omitempty"`
	Start1    int     `json:"start1"`
	Start2    int     `json:"start2"`
	End1      int     `json:"end1"`
	End2      int     `json:"end2"`
	Version   float64 `json:"version"`
}

func (l *wic) key() string       { return l.Sentence1 + "|" + l.Sentence2 }
func (l *wic) number(c *counter) { l.Idx = next(&c.line) }
func (l *wic) unlabel()          { l.Label = nil }

// ambiguous is a word with sentences for each of its two senses; brackets mark the word.
type ambiguous struct {
	word   string
	senses [2][]string
}

var ambiguousWords = []ambiguous{
	{"bank", [2][]string{
		{"{P} took money from the [bank].", "The [bank] gave {P} a loan.", "{P} works as a clerk in a [bank]."},
		{"{P} fished from the [bank] of the river.", "The river rose over its [banks].", "{P} sat on the grassy [bank] of the stream."},
	}},
	{"bat", [2][]string{
		{"A [bat] flew out of the cave.", "{P} saw [bats] in the night sky.", "The [bat] sleeps with its head down."},
		{"{P} hit the ball with a [bat].", "The [bat] is made of wood.", "{P} bought a new baseball [bat]."},
	}},
	{"ring", [2][]string{
		{"{P} wears a gold [ring].", "The [ring] slid off {P}'s finger.", "{P} lost two silver [rings]."},
		{"The boxers met in the [ring].", "{P} left the [ring] after the fight.", "The fighter fell down in the [ring]."},
	}},
	{"light", [2][]string{
		{"{P} turned off the [light].", "The [light] in the hall is on.", "{P} saw the [lights] of the town."},
		{"The bag is [light] and {P} lifts it.", "A feather is very [light].", "{P} took the [light] box, not the heavy one."},
	}},
	{"spring", [2][]string{
		{"Flowers bloom in [spring].", "{P} was born in the [spring].", "After winter comes [spring]."},
		{"The [spring] in the bed broke.", "{P} put a new [spring] in the clock.", "The toy jumps on steel [springs]."},
	}},
	{"match", [2][]string{
		{"{P} lit the fire with a [match].", "The [matches] got wet.", "{P} struck a [match] in the dark."},
		{"{P}'s team won the [match].", "The [match] ended in a draw.", "{P} played two tennis [matches]."},
	}},
	{"seal", [2][]string{
		{"The [seal] swam in the cold sea.", "{P} fed fish to the [seals].", "A [seal] barked on the rock."},
		{"{P} broke the [seal] on the letter.", "The king's [seal] is made of wax.", "The paper bears an old [seal]."},
	}},
	{"bark", [2][]string{
		{"The [bark] of the tree is rough.", "{P} cut a heart into the [bark].", "Oak [bark] is thick."},
		{"{P} heard the dog's [bark].", "The [bark] of the puppy woke {P}.", "With a loud [bark] the dog ran off."},
	}},
	{"letter", [2][]string{
		{"{P} mailed a [letter].", "The [letter] came in the post.", "{P} wrote long [letters] home."},
		{"A is the first [letter].", "{P}'s name has few [letters].", "The word ends with the [letter] E."},
	}},
	{"nail", [2][]string{
		{"{P} hit the [nail] with a hammer.", "The picture hangs on a [nail].", "{P} pulled two [nails] from the board."},
		{"{P} bites the [nail] of a finger.", "{P} painted every [nail] pink.", "The cat's [nails] are sharp."},
	}},
	{"wave", [2][]string{
		{"A [wave] hit the boat.", "{P} swam in the high [waves].", "The [wave] broke on the beach."},
		{"{P} said goodbye with a [wave].", "A [wave] of the hand called {P}.", "{P} gave us a friendly [wave]."},
	}},
	{"star", [2][]string{
		{"{P} saw a [star] in the sky.", "The [stars] shine at night.", "The sun is a [star]."},
		{"{P} is the [star] of the film.", "The movie [star] met {P}.", "{P} wants to be a pop [star]."},
	}},
}

// inventWiC puts a word into two sentences, in one sense or in both.
func inventWiC(r *prng.Source, class int) line {
	same := class == 1
	a := pick(r, ambiguousWords)
	who := distinct(r, people, 2)
	sense := r.IntN(2)
	two := distinct(r, a.senses[sense], 2)
	if !same {
		two[1] = pick(r, a.senses[1-sense])
	}
	l := &wic{Word: a.word, Label: &same, Version: 1.1}
	l.Sentence1, l.Start1, l.End1 = unbracket(fill(two[0], "P", who[0]))
	l.Sentence2, l.Start2, l.End2 = unbracket(fill(two[1], "P", who[1]))
	return l
}

// unbracket removes the brackets around one word and returns where it starts and ends.
func unbracket(s string) (plain string, start, end int) {
	before, rest, _ := strings.Cut(s, "[")
	word, after, _ := strings.Cut(rest, "]")
	return before + word + after, len(before), len(before) + len(word)
}
