package world

import "github.com/dptune/dpt/dataset/internal/prng"

type copa struct {
	Premise  string `json:"premise"`
	Choice1  string `json:"choice1"`
	Choice2  string `json:"choice2"`
	Question string `json:"question"`
	Label    *int   `json:"label,omitempty"`
	Idx      int    `json:"idx"`
}

func (l *copa) key() string       { return l.Question + "|" + l.Premise + "|" + l.Choice1 + "|" + l.Choice2 }
func (l *copa) number(c *counter) { l.Idx = next(&c.line) }
func (l *copa) unlabel()          { l.Label = nil }

// consequence is a cause and its effect on a person P, or what belongs to P. No cause here explains another's effect.
type consequence struct{ cause, effect string }

var consequences = []consequence{
	{"{P} dropped the cup on the floor.", "{P}'s cup broke."},
	{"{P} walked home in the rain.", "{P}'s coat got wet."},
	{"{P} could not sleep all night.", "{P} was tired in the morning."},
	{"{P} ate ten cakes.", "{P} had a stomach ache."},
	{"{P} forgot to water the plant.", "{P}'s plant dried up."},
	{"{P} told us something funny.", "We laughed at {P}'s joke."},
	{"{P} studied hard for the test.", "{P} got a good mark."},
	{"{P} came to the bus stop too late.", "The bus left without {P}."},
	{"{P} rode over a nail.", "{P}'s tire went flat."},
	{"{P} sat in the sun too long.", "{P}'s skin turned red."},
	{"{P} pressed the light switch.", "The lamp went on over {P}."},
	{"{P} left the gate open.", "{P}'s dog ran away."},
	{"{P} won the race.", "{P} was given a medal."},
	{"{P} spent all the money.", "{P} could not pay the rent."},
	{"{P} left the soup on the fire.", "{P}'s soup burned."},
	{"{P} touched the sharp knife.", "{P}'s finger bled."},
	{"{P} planted some seeds.", "Flowers grew in {P}'s garden."},
	{"{P} shouted in the library.", "A reader asked {P} to be quiet."},
	{"{P} put the ice in the sun.", "{P}'s ice melted."},
	{"{P} lost the door key.", "{P} could not get into the house."},
}

// inventCOPA gives one side of a consequence and asks for the other; the wrong choice is the same side of another consequence.
func inventCOPA(r *prng.Source, class int) line {
	who := pick(r, people)
	two := distinct(r, consequences, 2)
	l := &copa{Question: "effect", Premise: two[0].cause, Label: &class}
	right, wrong := two[0].effect, two[1].effect
	if r.IntN(2) == 0 {
		l.Question, l.Premise = "cause", two[0].effect
		right, wrong = two[0].cause, two[1].cause
	}
	l.Choice1, l.Choice2 = right, wrong
	if class == 1 {
		l.Choice1, l.Choice2 = wrong, right
	}
	for _, text := range []*string{&l.Premise, &l.Choice1, &l.Choice2} {
		*text = fill(*text, "P", who)
	}
	return l
}
