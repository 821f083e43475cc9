package mini

import (
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

type record struct {
	Source  string        `json:"source"`
	Passage recordPassage `json:"passage"`
	QAs     []recordQA    `json:"qas"`
	Idx     int           `json:"idx"`
}

type recordPassage struct {
	Text     string       `json:"text"`
	Entities []recordSpan `json:"entities"`
}

type recordQA struct {
	Query   string         `json:"query"`
	Answers []recordAnswer `json:"answers,omitempty"`
	Idx     int            `json:"idx"`
}

// recordSpan is a part of the passage; End is its last character.
type recordSpan struct {
	Start int `json:"start"`
	End   int `json:"end"`
}

type recordAnswer struct {
	Start int    `json:"start"`
	End   int    `json:"end"`
	Text  string `json:"text"`
}

func (l *record) key() string { return l.Passage.Text + "|" + l.QAs[0].Query }

func (l *record) number(c *counter) {
	l.Idx = postIncrement(&c.line)
	for i := range l.QAs {
		l.QAs[i].Idx = postIncrement(&c.question)
	}
}

func (l *record) unlabel() {
	for i := range l.QAs {
		l.QAs[i].Answers = nil
	}
}

// bullet starts a bullet point.
const bullet = "\n@highlight\n"

// inventReCoRD tells of two events among four people, one to a bullet point, and tells one of them
// again in another form without its people. Each of the four is equally likely to be the answer.
func inventReCoRD(r *prng.Source) (line, int) {
	who := side.Cast(r, 4)
	events := [2]world.Event{world.NewEvent(r, who[0], who[1]), world.NewEvent(r, who[2], who[3])}
	for events[0].SameDeed(events[1]) {
		events[1] = world.NewEvent(r, who[2], who[3])
	}
	about := r.IntN(2)
	told, asked := world.OtherForms(r)
	forms := [2]world.Form{world.AnyForm(r), world.AnyForm(r)}
	forms[about] = told
	text := world.Lead(r) + bullet + events[0].Tell(forms[0]) + bullet + events[1].Tell(forms[1])

	e := events[about]
	answer := e.Agent
	// A name in place of "somebody" would be one of the four that is not the answer.
	e.Agent, e.Patient = "@placeholder", "somebody"
	if r.IntN(2) == 0 {
		answer = events[about].Patient
		e = e.Reversed()
	}
	l := &record{
		Source:  "mini",
		Passage: recordPassage{Text: text},
		QAs:     []recordQA{{Query: world.Capital(e.Tell(asked)) + "."}},
	}
	for at := 0; at < len(text); at++ {
		for _, name := range who {
			if strings.HasPrefix(text[at:], name) {
				end := at + len(name) - 1 // no name is a part of another word of the text
				l.Passage.Entities = append(l.Passage.Entities, recordSpan{at, end})
				if name == answer {
					l.QAs[0].Answers = append(l.QAs[0].Answers, recordAnswer{at, end, name})
				}
			}
		}
	}
	return l, 0
}
