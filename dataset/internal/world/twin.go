package world

import "github.com/dptune/dpt/dataset/internal/prng"

// motive is what A does to B, with a reason that can only be A's and one that can only be B's.
type motive struct{ active, passive, whyA, whyB string }

var motives = []motive{
	{"fed", "was fed by", "had food", "was hungry"},
	{"thanked", "was thanked by", "felt grateful", "had helped"},
	{"taught", "was taught by", "knew a lot", "wished to learn"},
	{"scolded", "was scolded by", "was angry", "had been rude"},
	{"carried", "was carried by", "was strong", "could not walk"},
	{"asked", "was asked by", "had no idea", "knew the answer"},
	{"healed", "was healed by", "was a doctor", "was ill"},
	{"hired", "was hired by", "had a firm", "needed a job"},
	{"envied", "was envied by", "was poor", "was rich"},
	{"arrested", "was arrested by", "was a cop", "had stolen"},
	{"saved", "was saved by", "was brave", "was drowning"},
	{"obeyed", "was obeyed by", "was the servant", "was the boss"},
	{"praised", "was praised by", "felt pleased", "did well"},
	{"punished", "was punished by", "was strict", "had lied"},
	{"feared", "was feared by", "was timid", "was cruel"},
	{"paid", "was paid by", "was the buyer", "was the seller"},
}

// Twin is a sentence with a pronoun that stands for the agent or the patient of a deed, who may be
// named first or second. So neither the reason alone nor the order of the names tells the referent.
type Twin struct {
	motive         int
	Agent, Patient string
	Passive        bool
	byAgent        bool // the reason is the agent's: the pronoun stands for the agent
}

// NewTwin draws a sentence about two people with the same pronoun.
func NewTwin(r *prng.Source, who []string) Twin {
	return Twin{
		motive:  r.IntN(len(motives)),
		Agent:   who[0],
		Patient: who[1],
		Passive: r.IntN(2) == 0,
		byAgent: r.IntN(2) == 0,
	}
}

// deed is the sentence before "because".
func (t Twin) deed() string {
	if t.Passive {
		return t.Patient + " " + motives[t.motive].passive + " " + t.Agent
	}
	return t.Agent + " " + motives[t.motive].active + " " + t.Patient
}

// Reason is the part after the pronoun.
func (t Twin) Reason() string {
	if t.byAgent {
		return motives[t.motive].whyA
	}
	return motives[t.motive].whyB
}

// Tell is the sentence with subject in place of the pronoun.
func (t Twin) Tell(subject string) string {
	return t.deed() + " because " + subject + " " + t.Reason() + "."
}

// Referent is the person that the pronoun stands for.
func (t Twin) Referent() string {
	if t.byAgent {
		return t.Agent
	}
	return t.Patient
}
