package mini

import (
	"slices"

	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

type multiRC struct {
	Idx     int            `json:"idx"`
	Version float64        `json:"version"`
	Passage multiRCPassage `json:"passage"`
}

type multiRCPassage struct {
	Text      string            `json:"text"`
	Questions []multiRCQuestion `json:"questions"`
}

type multiRCQuestion struct {
	Question string          `json:"question"`
	Answers  []multiRCAnswer `json:"answers"`
	Idx      int             `json:"idx"`
}

type multiRCAnswer struct {
	Text  string `json:"text"`
	Idx   int    `json:"idx"`
	Label *int   `json:"label,omitempty"`
}

func (l *multiRC) key() string { return l.Passage.Text }

func (l *multiRC) number(c *counter) {
	l.Idx = postIncrement(&c.line)
	for i := range l.Passage.Questions {
		q := &l.Passage.Questions[i]
		q.Idx = postIncrement(&c.question)
		for j := range q.Answers {
			q.Answers[j].Idx = postIncrement(&c.answer)
		}
	}
}

func (l *multiRC) unlabel() {
	for i := range l.Passage.Questions {
		for j := range l.Passage.Questions[i].Answers {
			l.Passage.Questions[i].Answers[j].Label = nil
		}
	}
}

// inventMultiRC tells what each of two people did with two things. It either asks what each of them
// did it with, with three answers each; or it asks that of one person, and of two things who did
// it, with two answers each. Half of the answers of a line are true, and each question has true and
// false ones. Wrong answers are right ones of another question.
func inventMultiRC(r *prng.Source) (line, int) {
	s := world.NewShopping(r, side.Cast(r, 2))
	l := &multiRC{Version: 1.1, Passage: multiRCPassage{Text: s.Tell()}}
	what := func(i int, answers int, right int) {
		q := multiRCQuestion{Question: s.Ask(i)}
		own, others := world.Distinct(r, s.Things[i][:], right), world.Distinct(r, s.Things[1-i][:], answers-right)
		things := slices.Concat(own, others)
		for _, thing := range world.Distinct(r, things, answers) {
			q.Answers = append(q.Answers, multiRCAnswer{Text: "A " + thing, Label: new(classOf(s.Did(i, thing)))})
		}
		l.Passage.Questions = append(l.Passage.Questions, q)
	}
	if r.IntN(2) == 0 {
		right := 1 + r.IntN(2)
		what(0, 3, right)
		what(1, 3, 3-right)
	} else {
		what(r.IntN(2), 2, 1)
		for _, thing := range world.Distinct(r, s.All(), 2) {
			q := multiRCQuestion{Question: s.AskWho(thing)}
			for _, i := range r.Perm(2) {
				q.Answers = append(q.Answers, multiRCAnswer{Text: s.Who[i], Label: new(classOf(s.Doer(thing) == i))})
			}
			l.Passage.Questions = append(l.Passage.Questions, q)
		}
	}
	l.Passage.Questions = world.Distinct(r, l.Passage.Questions, len(l.Passage.Questions))
	return l, 0
}
