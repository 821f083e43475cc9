package world

import "github.com/dptune/dpt/dataset/internal/prng"

// Form is one of the three ways of telling an event.
type Form int

const (
	Active   Form = iota // Ann gave Bob a cup
	Passive              // Bob was given a cup by Ann
	Converse             // Bob got a cup from Ann
	forms
)

// relation is what an agent A does to a patient B, with a thing T or without.
type relation struct {
	tell       [forms]string // templates of a sentence, by form
	whoA, whoB string        // questions whose answers are A and B
	transfer   bool          // there is a T, which B has afterwards
}

var relations = []relation{
	{
		[forms]string{"{A} gave {B} a {T}", "{B} was given a {T} by {A}", "{B} got a {T} from {A}"},
		"Who gave it?", "Who got it?", true,
	},
	{
		[forms]string{"{A} sold {B} a {T}", "{B} was sold a {T} by {A}", "{B} bought a {T} from {A}"},
		"Who sold it?", "Who bought it?", true,
	},
	{
		[forms]string{"{A} lent {B} a {T}", "{B} was lent a {T} by {A}", "{B} borrowed a {T} from {A}"},
		"Who lent it?", "Who borrowed it?", true,
	},
	{
		[forms]string{"{A} sent {B} a {T}", "{B} was sent a {T} by {A}", "{B} received a {T} from {A}"},
		"Who sent it?", "Who received it?", true,
	},
	{
		[forms]string{"{A} taught {B}", "{B} was taught by {A}", "{B} learned from {A}"},
		"Who taught?", "Who learned?", false,
	},
	{
		[forms]string{"{A} beat {B}", "{B} was beaten by {A}", "{B} lost to {A}"},
		"Who won?", "Who lost?", false,
	},
	{
		[forms]string{"{A} led {B}", "{B} was led by {A}", "{B} followed {A}"},
		"Who led?", "Who followed?", false,
	},
	{
		[forms]string{"{A} hired {B}", "{B} was hired by {A}", "{B} worked for {A}"},
		"Who was the boss?", "Who worked?", false,
	},
	{
		[forms]string{"{A} chased {B}", "{B} was chased by {A}", "{B} fled from {A}"},
		"Who chased?", "Who fled?", false,
	},
	{
		[forms]string{"{A} hosted {B}", "{B} was hosted by {A}", "{B} stayed with {A}"},
		"Who was the host?", "Who was the guest?", false,
	},
	{
		[forms]string{"{A} scared {B}", "{B} was scared by {A}", "{B} feared {A}"},
		"Who was scary?", "Who was afraid?", false,
	},
	{
		[forms]string{"{A} cured {B}", "{B} was cured by {A}", "{B} got well by {A}"},
		"Who was the doctor?", "Who was ill?", false,
	},
	{
		[forms]string{"{A} paid {B}", "{B} was paid by {A}", "{B} earned from {A}"},
		"Who paid?", "Who earned?", false,
	},
}

// Event is a relation between two people. Events are comparable: two events are equal if they tell
// the same fact, in whatever form.
type Event struct {
	relation       int
	Agent, Patient string
	thing          string // "" where the relation has none
}

// NewEvent draws an event between two people.
func NewEvent(r *prng.Source, agent, patient string) Event {
	i := r.IntN(len(relations))
	e := Event{relation: i, Agent: agent, Patient: patient}
	if relations[i].transfer {
		e.thing = Pick(r, things)
	}
	return e
}

// Tell is the event as a sentence without its full stop.
func (e Event) Tell(f Form) string {
	return fill(relations[e.relation].tell[f], "A", e.Agent, "B", e.Patient, "T", e.thing)
}

// AskAgent is the question whose answer is the agent.
func (e Event) AskAgent() string { return relations[e.relation].whoA }

// AskPatient is the question whose answer is the patient.
func (e Event) AskPatient() string { return relations[e.relation].whoB }

// Reversed is the event with the roles of the two people exchanged.
func (e Event) Reversed() Event {
	e.Agent, e.Patient = e.Patient, e.Agent
	return e
}

// AnyForm draws a form.
func AnyForm(r *prng.Source) Form { return Form(r.IntN(int(forms))) }

// OtherForms draws two different forms. They name the same person first half of the time, so that
// the order of the names alone does not tell who does what.
func OtherForms(r *prng.Source) (one, other Form) {
	one, other = Passive, Converse
	if r.IntN(2) == 0 {
		one, other = Active, Form(1+r.IntN(2))
	}
	if r.IntN(2) == 0 {
		one, other = other, one
	}
	return one, other
}

// SameDeed reports whether two events have the same relation and the same thing, whoever took part.
func (e Event) SameDeed(other Event) bool {
	return e.relation == other.relation && e.thing == other.thing
}

// leads open a report of events.
var leads = []string{"This is the news.", "News from the town.", "Read all about it.", "Here is what we heard."}

// Lead draws a sentence that opens a report of events.
func Lead(r *prng.Source) string { return Pick(r, leads) }
