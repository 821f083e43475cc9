package world

import (
	"cmp"
	"slices"
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
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

func (l *record) key() string { return l.Passage.Text }

func (l *record) number(c *counter) {
	l.Idx = next(&c.line)
	for i := range l.QAs {
		l.QAs[i].Idx = next(&c.question)
	}
}

func (l *record) unlabel() {
	for i := range l.QAs {
		l.QAs[i].Answers = nil
	}
}

// story is a report with bullet points. F is the first person's full name, P the first name alone, Q another person, V and W
// towns. Each query's placeholder stands for the person or the town of its answer's letter; the others do not fit.
type story struct {
	text    string
	queries []storyQuery
}

type storyQuery struct{ query, answer string }

// bullet starts a bullet point.
const bullet = "\n@highlight\n"

var stories = []story{
	{"{F} lost a {T} in {V}. {Q} found it." + bullet + "{P} paid {Q} to get it back" + bullet + "{Q} is from {W}", []storyQuery{
		{"The {T} belongs to @placeholder.", "P"},
		{"@placeholder got money for the {T}.", "Q"},
		{"The {T} lay in @placeholder.", "V"},
	}},
	{"{F} won the race in {V}." + bullet + "{Q} fell and hurt a leg" + bullet + "{P} got a {C} {T} as a prize", []storyQuery{
		{"The crowd cheered for @placeholder, the winner.", "P"},
		{"A doctor looked after @placeholder.", "Q"},
		{"The race was held in @placeholder.", "V"},
	}},
	{"{F} is the new mayor of {V}." + bullet + "{Q} is the mayor of {W}" + bullet + "{P} won by {N} votes", []storyQuery{
		{"The people of {V} voted for @placeholder.", "P"},
		{"{Q} works in @placeholder.", "W"},
		{"The mayor of {W} is @placeholder.", "Q"},
	}},
	{"{F} sold a {C} {T} to {Q} in {V}." + bullet + "{Q} took it home to {W}" + bullet + "{P} made {N} coins", []storyQuery{
		{"The {T} is now in @placeholder.", "W"},
		{"The new owner of the {T} is @placeholder.", "Q"},
		{"The {T} once belonged to @placeholder.", "P"},
	}},
	{"{F} opened a {T} shop in {V}." + bullet + "\"I like it,\" said {Q}" + bullet + "{P} was a cook in {W} before", []storyQuery{
		{"The owner of the shop is @placeholder.", "P"},
		{"One can buy a {T} in @placeholder.", "V"},
		{"@placeholder was the cook's town.", "W"},
	}},
	{"{F} took the train from {V} to {W}." + bullet + "{Q} waited there for {N} hours" + bullet + "{P} forgot a {T}", []storyQuery{
		{"The trip began in @placeholder.", "V"},
		{"The trip ended in @placeholder.", "W"},
		{"@placeholder was late.", "P"},
	}},
}

// inventReCoRD tells a story and asks one query about it, or two.
func inventReCoRD(r *prng.Source, _ int) line {
	s := pick(r, stories)
	who, town := distinct(r, people, 2), distinct(r, towns, 2)
	full := who[0] + " " + pick(r, surnames)
	names := []string{
		"F", full, "P", who[0], "Q", who[1], "V", town[0], "W", town[1], "T", pick(r, things), "C", pick(r, colors),
		"N", string(rune('2' + r.IntN(8))),
	}
	text := fill(s.text, names...)
	spans := find(text, full, who[0], who[1], town[0], town[1])
	l := &record{Source: "mini", Passage: recordPassage{Text: text}}
	for _, a := range spans {
		l.Passage.Entities = append(l.Passage.Entities, recordSpan{a.Start, a.End})
	}
	accepted := map[string][]string{"P": {full, who[0]}, "Q": {who[1]}, "V": {town[0]}, "W": {town[1]}}
	for _, q := range distinct(r, s.queries, 1+r.IntN(4)/3) {
		qa := recordQA{Query: fill(q.query, names...)}
		for _, a := range spans {
			if slices.Contains(accepted[q.answer], a.Text) {
				qa.Answers = append(qa.Answers, a)
			}
		}
		l.QAs = append(l.QAs, qa)
	}
	return l
}

// find returns where names stand in an ASCII text, in order; at one place the longest counts.
func find(text string, names ...string) []recordAnswer {
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	var spans []recordAnswer
	for at := 0; at < len(text); {
		n := slices.IndexFunc(names, func(name string) bool { return strings.HasPrefix(text[at:], name) })
		if n < 0 {
			at++
			continue
		}
		spans = append(spans, recordAnswer{Start: at, End: at + len(names[n]) - 1, Text: names[n]})
		at += len(names[n])
	}
	return spans
}
