package world

import (
	"strconv"
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// entailment is a line of CB and of RTE.
type entailment struct {
	Premise    string `json:"premise"`
	Hypothesis string `json:"hypothesis"`
	Label      string `json:"label,omitempty"`
	Idx        int    `json:"idx"`
}

func (l *entailment) key() string       { return l.Premise + "|" + l.Hypothesis }
func (l *entailment) number(c *counter) { l.Idx = next(&c.line) }
func (l *entailment) unlabel()          { l.Label = "" }

var (
	cbLabels  = []string{"entailment", "contradiction", "neutral"}
	rteLabels = []string{"entailment", "not_entailment"}
)

// frames say, by CB's class, how a speaker's words commit to the clause that they embed: verbs of knowledge do so even under
// negation, verbs of opinion do not, and errors deny it.
var frames = [][]string{
	{
		"{Q} knows that {S}.", "{Q} saw that {S}.", "{Q} found out that {S}.", "{Q} is glad that {S}.", "{Q} did not know that {S}.",
		"{Q} forgot that {S}.", "It is sad that {S}.", "Does {Q} know that {S}?",
	},
	{
		"{Q} was wrong to think that {S}.", "{Q} lied that {S}.", "{Q} only dreamed that {S}.", "{Q} pretends that {S}.",
		"It is not true that {S}.", "{Q} falsely told us that {S}.", "{Q} wrongly said that {S}.", "{Q} made up the story that {S}.",
	},
	{
		"{Q} thinks that {S}.", "{Q} hopes that {S}.", "{Q} asks if {S}.", "{Q} guesses that {S}.", "{Q} does not know if {S}.",
		"It may be that {S}.", "{Q} heard that {S}.", "Does {Q} think that {S}?",
	},
}

// asides come before some frames, as in the dialogues that CB quotes.
var asides = []string{"", "", "A: Well, ", "B: Uh, ", "A: I see. B: And ", "The day was warm. "}

// inventCB embeds a statement in a frame of the class.
func inventCB(r *prng.Source, class int) line {
	who := distinct(r, people, 2)
	statement := fill(pick(r, []string{
		"the {T} is {C}", "{P} lost the {T}", "{P} sold the {C} {T}", "{P} lives in {W}", "the {T} is {L}",
		"{P} has a {C} {T}", "{P} went to {W}",
	}), "T", pick(r, things), "C", pick(r, colors), "P", who[0], "W", pick(r, towns), "L", pick(r, places))
	frame, aside := pick(r, frames[class]), pick(r, asides)
	if aside != "" && !strings.HasSuffix(aside, ". ") {
		frame = lower(frame[:1]) + frame[1:] // the aside's sentence goes on
	}
	return &entailment{
		Premise: aside + fill(frame, "Q", who[1], "S", statement), Hypothesis: statement, Label: cbLabels[class],
	}
}

// inference is a premise with a hypothesis that follows from it, and one that does not.
type inference struct{ premise, follows, not string }

// inferences are about people P Q R, things T U, colors C D, towns V W and the numbers M < N.
var inferences = []inference{
	{"{P} sold a {C} {T} to {Q}.", "{Q} bought a {T} from {P}.", "{P} bought a {T} from {Q}."},
	{"{P} gave {Q} a {T} and {R} a {U}.", "{R} got a {U}.", "{R} got a {T}."},
	{"{P}, who lives in {V}, works in {W}.", "{P} works in {W}.", "{P} works in {V}."},
	{"{P} is older than {Q}, and {Q} is older than {R}.", "{P} is older than {R}.", "{R} is older than {P}."},
	{"All the {T}s in the shop are {C}. {P} took a {T} from the shop.", "{P} took a {C} {T}.", "{P} took a {D} {T}."},
	{"The {T} cost {M} coins and the {U} cost {N} coins.", "The {U} cost more than the {T}.", "The {T} cost more than the {U}."},
	{"{P} and {Q} went from {V} to {W} by train.", "{Q} went to {W}.", "{Q} went to {V}."},
	{"{P} wanted a {T}, but {Q} only had a {U}.", "{Q} had a {U}.", "{P} had a {T}."},
	{"The {T} that {P} found in {V} was {C}.", "{P} found a {C} {T}.", "{P} found a {D} {T}."},
	{"{P} left {V} before {Q} came there.", "{Q} came to {V} after {P} left.", "{P} met {Q} in {V}."},
	{"{P} sings well, and so does {Q}, but {R} does not.", "{Q} sings well.", "{R} sings well."},
	{"{P} forgot to bring the {T}, so {Q} brought a {U}.", "{P} did not bring the {T}.", "{Q} brought the {T}."},
	{"Only {P} and {Q} can swim. {R} cannot.", "{P} can swim.", "{R} can swim."},
	{"{P} put the {T} in a {C} box and the {U} in a {D} bag.", "The {U} is in a bag.", "The {U} is in a box."},
}

// inventRTE tells something and what follows from it, or what does not.
func inventRTE(r *prng.Source, class int) line {
	inf := pick(r, inferences)
	who, what, color, town := distinct(r, people, 3), distinct(r, things, 2), distinct(r, colors, 2), distinct(r, towns, 2)
	few := r.IntN(8) + 2
	names := []string{
		"P", who[0], "Q", who[1], "R", who[2], "T", what[0], "U", what[1], "C", color[0], "D", color[1],
		"V", town[0], "W", town[1], "M", strconv.Itoa(few), "N", strconv.Itoa(few + 1 + r.IntN(8)),
	}
	hypothesis := inf.follows
	if class == 1 {
		hypothesis = inf.not
	}
	return &entailment{
		Premise: fill(inf.premise, names...), Hypothesis: fill(hypothesis, names...), Label: rteLabels[class],
	}
}
