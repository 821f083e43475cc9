package world

import (
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
)

type wsc struct {
	Text   string    `json:"text"`
	Target wscTarget `json:"target"`
	Idx    int       `json:"idx"`
	Label  *bool     `json:"label,omitempty"`
}

type wscTarget struct {
	Span1Text  string `json:"span1_text"`
	Span1Index int    `json:"span1_index"`
	Span2Text  string `json:"span2_text"`
	Span2Index int    `json:"span2_index"`
}

func (l *wsc) key() string       { return l.Text } // a true and a false line of one text would tell each other's label
func (l *wsc) number(c *counter) { l.Idx = next(&c.line) }
func (l *wsc) unlabel()          { l.Label = nil }

// twins are two sentences that differ in a few words, which turn the pronoun's referent from A to B. A and B are two women or
// two men; S is their pronoun. Brackets mark it.
type twins struct{ a, b string }

var twinSentences = []twins{
	{"{A} helped {B} because [{S}] was kind.", "{A} helped {B} because [{S}] was in need."},
	{"{A} thanked {B} because [{S}] was grateful.", "{A} thanked {B} because [{S}] had helped."},
	{"{A} asked {B} the way because [{S}] was lost.", "{A} asked {B} the way because [{S}] knew the town."},
	{"{A} paid {B} because [{S}] had bought a lamp.", "{A} paid {B} because [{S}] had sold a lamp."},
	{"{A} ran after {B} but [{S}] was too slow.", "{A} ran after {B} but [{S}] was too fast."},
	{"{A} lifted {B} since [{S}] was so strong.", "{A} lifted {B} since [{S}] was so light."},
	{"{A} called {B} but [{S}] got no answer.", "{A} called {B} but [{S}] did not answer."},
	{"{A} taught {B} to swim since [{S}] swam well.", "{A} taught {B} to swim since [{S}] could not swim."},
	{"{A} lost to {B} because [{S}] played badly.", "{A} lost to {B} because [{S}] played well."},
	{"{A} fed {B} because [{S}] had a lot of food.", "{A} fed {B} because [{S}] was hungry."},
}

// fits are twins about a thing A that goes into a thing B.
var fits = []twins{
	{"The {A} does not fit in the {B} because [it] is too big.", "The {A} does not fit in the {B} because [it] is too small."},
	{"{P} took the {A} out of the {B} so that [it] could be used.", "{P} took the {A} out of the {B} so that [it] would be empty."},
}

var (
	contents   = []string{"ball", "drum", "lamp", "coat", "clock"}
	containers = []string{"box", "bag", "trunk", "basket"}
)

// inventWSC asks whether a pronoun stands for A or for B; it does where the class is 1.
func inventWSC(r *prng.Source, class int) line {
	var pair twins
	var a, b, text, referent string
	if r.IntN(4) > 0 {
		sex, _ := sexes(r)
		who := distinct(r, sex, 2)
		a, b, pair = who[0], who[1], pick(r, twinSentences)
	} else {
		a, b, pair = pick(r, contents), pick(r, containers), pick(r, fits)
	}
	if r.IntN(2) == 0 {
		text, referent = pair.a, a
	} else {
		text, referent = pair.b, b
	}
	text = fill(text, "A", a, "B", b, "S", pronoun(a), "P", pick(r, people))
	text, start, end := unbracket(text)
	noun := referent
	if class == 0 {
		noun = a
		if referent == a {
			noun = b
		}
	}
	right := class == 1
	nounText, nounStart := noun, strings.Index(text, noun)
	if article := "the " + noun; strings.Contains(lower(text), article) {
		nounStart = strings.Index(lower(text), article)
		nounText = text[nounStart : nounStart+len(article)]
	}
	return &wsc{Text: text, Label: &right, Target: wscTarget{
		Span1Text: nounText, Span1Index: wordsBefore(text, nounStart),
		Span2Text: text[start:end], Span2Index: wordsBefore(text, start),
	}}
}

// wordsBefore counts the words before an offset.
func wordsBefore(text string, at int) int { return strings.Count(text[:at], " ") }
