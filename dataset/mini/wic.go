package mini

import (
	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
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
func (l *wic) number(c *counter) { l.Idx = postIncrement(&c.line) }
func (l *wic) unlabel()          { l.Label = nil }

// inventWiC puts a word into two sentences, in one sense or in both.
func inventWiC(r *prng.Source) (line, int) {
	u, v := world.NewUses(r, side.Cast(r, 2))
	same := u.Sense == v.Sense
	return &wic{
		Word: u.Word, Sentence1: u.Sentence, Sentence2: v.Sentence, Label: &same, Version: 1.1,
		Start1: u.Start, End1: u.End, Start2: v.Start, End2: v.End,
	}, classOf(same)
}
