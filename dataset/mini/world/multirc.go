package world

import "github.com/dptune/dpt/dataset/internal/prng"

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
	l.Idx = next(&c.line)
	for i := range l.Passage.Questions {
		q := &l.Passage.Questions[i]
		q.Idx = next(&c.question)
		for j := range q.Answers {
			q.Answers[j].Idx = next(&c.answer)
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

// inventMultiRC tells of a journey and what was bought, and asks two or three questions, each with two or three answers of which
// at least one is true. Wrong answers are mostly right ones of other questions.
func inventMultiRC(r *prng.Source, _ int) line {
	who, town, day := distinct(r, people, 3), distinct(r, towns, 2), distinct(r, days, 2)
	what, color := distinct(r, things, 4), distinct(r, colors, 3)
	text := fill("On {D}, {P} and {Q} went to {W}. {P} bought a {C} {T} and a {E} {U}. {Q} bought a {F} {V}.",
		"D", day[0], "P", who[0], "Q", who[1], "W", town[0],
		"C", color[0], "T", what[0], "E", color[1], "U", what[1], "F", color[2], "V", what[2])

	questions := []struct {
		question   string
		true, fake []string
	}{
		{"What did " + who[0] + " buy?", []string{"A " + what[0], "A " + what[1], "A " + color[0] + " " + what[0]},
			[]string{"A " + what[2], "A " + what[3], "A " + color[2] + " " + what[0]}},
		{"What did " + who[1] + " buy?", []string{"A " + what[2], "A " + color[2] + " " + what[2]},
			[]string{"A " + what[0], "A " + what[1], "A " + color[0] + " " + what[2]}},
		{"Who went to " + town[0] + "?", []string{who[0], who[1], who[0] + " and " + who[1]}, []string{who[2], who[0] + " and " + who[2]}},
		{"Where did " + who[1] + " go?", []string{town[0], "To " + town[0]}, []string{town[1], "To " + town[1]}},
		{"When did they go?", []string{day[0], "On " + day[0]}, []string{day[1], "On " + day[1]}},
		{"Which thing is " + color[1] + "?", []string{"The " + what[1], what[1]}, []string{"The " + what[0], "The " + what[2], what[2]}},
	}
	l := &multiRC{Version: 1.1, Passage: multiRCPassage{Text: text}}
	for _, q := range distinct(r, questions, 2+r.IntN(2)) {
		n := 2 + r.IntN(2)
		right := 1 + r.IntN(2) // at least one of two or three, and evenly true and false over all
		if n == 2 {
			right = 1
		}
		var answers []multiRCAnswer
		for _, a := range distinct(r, q.true, right) {
			answers = append(answers, multiRCAnswer{Text: a, Label: new(1)})
		}
		for _, a := range distinct(r, q.fake, n-right) {
			answers = append(answers, multiRCAnswer{Text: a, Label: new(0)})
		}
		l.Passage.Questions = append(l.Passage.Questions, multiRCQuestion{Question: q.question, Answers: distinct(r, answers, n)})
	}
	return l
}
