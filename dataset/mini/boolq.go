package mini

import (
	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

type boolQ struct {
	Question string `json:"question"`
	Passage  string `json:"passage"`
	Idx      int    `json:"idx"`
	Label    *bool  `json:"label,omitempty"`
}

func (l *boolQ) key() string       { return l.Passage + "|" + l.Question }
func (l *boolQ) number(c *counter) { l.Idx = postIncrement(&c.line) }
func (l *boolQ) unlabel()          { l.Label = nil }

// inventBoolQ tells of two or three people and their things, and asks for an owner, a color or a
// place. What is wrong for one thing is right for another, so that a reader must find the right
// sentence.
func inventBoolQ(r *prng.Source) (line, int) {
	s := world.NewScene(r, side.Cast(r, 2+r.IntN(2)))
	a := s.NewAttribution(r)
	holds := a.Holds()
	return &boolQ{Question: s.Question(a), Passage: s.Tell(), Label: &holds}, classOf(holds)
}
