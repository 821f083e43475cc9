package mini

import (
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
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
func (l *wsc) number(c *counter) { l.Idx = postIncrement(&c.line) }
func (l *wsc) unlabel()          { l.Label = nil }

// inventWSC asks whether a pronoun stands for one of two people.
func inventWSC(r *prng.Source) (line, int) {
	who := side.CastAlike(r, 2)
	t := world.NewTwin(r, who)
	he := world.Pronoun(who[0])
	text := t.Tell(he)
	noun := world.Pick(r, who)
	right := noun == t.Referent()
	return &wsc{Text: text, Label: &right, Target: wscTarget{
		Span1Text: noun, Span1Index: wordIndex(text, noun), Span2Text: he, Span2Index: wordIndex(text, he),
	}}, classOf(right)
}

// wordIndex is the number of the first word of a text that is the given one.
func wordIndex(text, word string) int {
	for i, w := range strings.Fields(text) {
		if w == word {
			return i
		}
	}
	return -1
}
