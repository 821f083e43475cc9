package world

import (
	"strings"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// ambiguous is a word with two senses, each with a gloss and with sentences about a person P that
// show it. Brackets mark the word. The sentences of one sense share no content words, so that
// counting common words does not tell the senses apart.
type ambiguous struct {
	word   string
	gloss  [2]string
	senses [2][]string
}

var ambiguousWords = []ambiguous{
	{"bank", [2]string{"money house", "river side"}, [2][]string{
		{"{P} got a loan from the [bank].", "{P} keeps gold in the [bank].", "{P} robbed a [bank].",
			"{P} is a clerk at the [bank]."},
		{"{P} fished from the [bank].", "{P} swam to the other [bank].", "{P} moored the boat at the [bank].",
			"{P} sat on the muddy [bank]."},
	}},
	{"bat", [2]string{"night animal", "stick"}, [2][]string{
		{"{P} saw a [bat] fly at night.", "{P} found a [bat] in the cave.", "{P} fed insects to the [bat].",
			"{P} heard the [bat] squeak."},
		{"{P} hit the ball with a [bat].", "{P} swung the [bat].", "{P} carved a [bat] from wood.",
			"{P} took the [bat] to the baseball game."},
	}},
	{"seal", [2]string{"sea animal", "wax stamp"}, [2][]string{
		{"{P} fed fish to the [seal].", "{P} saw a [seal] dive.", "{P} took a photo of the wet [seal].",
			"{P} met a [seal] on the ice."},
		{"{P} broke the [seal] on the letter.", "{P} pressed the [seal] into wax.", "{P} knew the king's [seal].",
			"{P} put a [seal] under the contract."},
	}},
	{"match", [2]string{"fire stick", "game"}, [2][]string{
		{"{P} lit the candle with a [match].", "{P} struck a [match].", "{P} burned a finger on the [match].",
			"{P} took a [match] from the little box."},
		{"{P} won the [match].", "{P} played a tennis [match].", "{P} was the referee of the [match].",
			"{P} bought a ticket for the [match]."},
	}},
	{"nail", [2]string{"metal pin", "finger tip"}, [2][]string{
		{"{P} hammered the [nail].", "{P} hung the picture on a [nail].", "{P} pulled a rusty [nail] out.",
			"{P} fixed the board with a [nail]."},
		{"{P} painted one [nail] pink.", "{P} bit a [nail].", "{P} cut the [nail] of the thumb.",
			"{P} filed a long [nail]."},
	}},
	{"star", [2]string{"light in the sky", "famous person"}, [2][]string{
		{"{P} saw a [star] at night.", "{P} looked at a [star] through the telescope.",
			"{P} steered by the north [star].", "{P} counted each [star] above."},
		{"{P} is a film [star].", "{P} got an autograph from the [star].", "{P} became a pop [star].",
			"{P} asked the [star] for a photo."},
	}},
	{"ring", [2]string{"jewel", "boxing place"}, [2][]string{
		{"{P} wears a gold [ring].", "{P} put the [ring] on a finger.", "{P} got a diamond [ring].",
			"{P} bought a wedding [ring]."},
		{"{P} fought in the [ring].", "{P} was knocked down in the [ring].",
			"{P} climbed over the ropes into the [ring].", "{P} boxed in the [ring]."},
	}},
	{"spring", [2]string{"season", "coil"}, [2][]string{
		{"{P} plants tulips in [spring].", "{P} was born in [spring].", "{P} loves [spring] more than winter.",
			"{P} waits for April and [spring]."},
		{"{P} oiled the steel [spring].", "{P} bent the [spring] of the clock.", "{P} felt a [spring] in the sofa.",
			"{P} stretched the [spring]."},
	}},
	{"bark", [2]string{"tree skin", "dog sound"}, [2][]string{
		{"{P} cut a heart into the [bark].", "{P} peeled the [bark] off.", "{P} touched the rough oak [bark].",
			"{P} saw ants crawl up the [bark]."},
		{"{P} heard the puppy's [bark].", "{P} woke up from a loud [bark].", "{P} knew the hound by its [bark].",
			"{P} scared the cat with a [bark]."},
	}},
	{"letter", [2]string{"mail", "sign"}, [2][]string{
		{"{P} mailed a [letter].", "{P} put a stamp on the [letter].", "{P} wrote a [letter] home.",
			"{P} opened the love [letter]."},
		{"{P} can not say the [letter] R.", "{P} taught the child a [letter].",
			"{P} forgot a [letter] of the alphabet.", "{P} spelled the word with a wrong [letter]."},
	}},
	{"wave", [2]string{"moving water", "hand sign"}, [2][]string{
		{"{P} surfed on a [wave].", "{P} saw a [wave] hit the beach.", "{P} dived under the [wave].",
			"{P} lost the boat in a [wave]."},
		{"{P} said goodbye with a [wave].", "{P} gave a friend a [wave].", "{P} called the waiter with a [wave].",
			"{P} greeted the crowd with a [wave]."},
	}},
	{"palm", [2]string{"tree", "hand part"}, [2][]string{
		{"{P} climbed a [palm].", "{P} picked a coconut from the [palm].", "{P} slept under the [palm].",
			"{P} planted a [palm] on the island."},
		{"{P} held a coin in one [palm].", "{P} scratched an itchy [palm].", "{P} read the future from a [palm].",
			"{P} slapped with a flat [palm]."},
	}},
	{"trunk", [2]string{"elephant nose", "big box"}, [2][]string{
		{"{P} saw the elephant lift its [trunk].", "{P} was sprayed by a [trunk].",
			"{P} put a peanut into the gray [trunk].", "{P} drew a mammoth with a long [trunk]."},
		{"{P} packed clothes into a [trunk].", "{P} locked the old [trunk].", "{P} lost the key of the [trunk].",
			"{P} sat on a heavy [trunk] at the station."},
	}},
	{"crane", [2]string{"bird", "machine"}, [2][]string{
		{"{P} saw a [crane] build a nest.", "{P} found a feather of a [crane].",
			"{P} heard a [crane] sing in the marsh.", "{P} fed frogs to the [crane]."},
		{"{P} lifted the steel with a [crane].", "{P} drove the [crane] at work.",
			"{P} repaired the motor of a [crane].", "{P} rented a [crane] for the roof."},
	}},
	{"mouse", [2]string{"little animal", "computer part"}, [2][]string{
		{"{P} set a trap for the [mouse].", "{P} saw the cat catch a [mouse].", "{P} gave cheese to the [mouse].",
			"{P} is afraid of a [mouse]."},
		{"{P} clicked with the [mouse].", "{P} plugged in a [mouse].", "{P} moved the arrow with the [mouse].",
			"{P} bought a laptop and a [mouse]."},
	}},
	{"pitcher", [2]string{"jar", "ball player"}, [2][]string{
		{"{P} poured milk from the [pitcher].", "{P} filled the [pitcher].", "{P} broke the glass [pitcher].",
			"{P} set a [pitcher] of juice down."},
		{"{P} is the best [pitcher] on the team.", "{P} cheered for the [pitcher].",
			"{P} saw the [pitcher] throw fast.", "{P} coached the young [pitcher]."},
	}},
	{"pen", [2]string{"writing tool", "pig yard"}, [2][]string{
		{"{P} wrote with a [pen].", "{P} spilled ink from the [pen].", "{P} signed with a fine [pen].",
			"{P} drew a line with a blue [pen]."},
		{"{P} shut the pigs in the [pen].", "{P} built a fence around the [pen].",
			"{P} cleaned the dirty [pen] on the farm.", "{P} led the sheep into the [pen]."},
	}},
	{"pupil", [2]string{"student", "eye part"}, [2][]string{
		{"{P} is a good [pupil].", "{P} gave the [pupil] homework.", "{P} taught a [pupil] to count.",
			"{P} praised the [pupil] in class."},
		{"{P} shone a lamp into the [pupil].", "{P} saw the [pupil] of the eye grow.", "{P} has one very wide [pupil].",
			"{P} got a drop into the left [pupil]."},
	}},
	{"bolt", [2]string{"lightning", "screw"}, [2][]string{
		{"{P} saw a [bolt] in the storm.", "{P} was nearly hit by a [bolt] of thunder.",
			"{P} feared the [bolt] from the clouds.", "{P} filmed a [bolt] in the dark sky."},
		{"{P} tightened the [bolt].", "{P} lost a [bolt] of the engine.", "{P} turned the [bolt] with a wrench.",
			"{P} greased a metal [bolt]."},
	}},
	{"horn", [2]string{"car sound", "bull's weapon"}, [2][]string{
		{"{P} honked the [horn].", "{P} blew the [horn] of the truck.", "{P} heard a taxi's [horn].",
			"{P} pushed the [horn] at a red light."},
		{"{P} was hurt by a bull's [horn].", "{P} polished the goat's [horn].", "{P} saw a rhino with one [horn].",
			"{P} held the cow by the [horn]."},
	}},
	{"tie", [2]string{"neck cloth", "even score"}, [2][]string{
		{"{P} wears a silk [tie].", "{P} loosened the [tie].", "{P} chose a striped [tie].",
			"{P} bought a shirt and a [tie]."},
		{"{P} fought hard for a [tie].", "{P} scored and made it a [tie].", "{P} hoped to win but got a [tie].",
			"{P} saw the game end in a [tie]."},
	}},
	{"date", [2]string{"fruit", "day"}, [2][]string{
		{"{P} ate a sweet [date].", "{P} picked a ripe [date].", "{P} baked a [date] into the cake.",
			"{P} spat out the stone of a [date]."},
		{"{P} set a [date] for the wedding.", "{P} looked up the [date] in the calendar.",
			"{P} wrote down the [date] of the exam.", "{P} forgot the [date] of the meeting."},
	}},
	{"sheet", [2]string{"bed cloth", "paper"}, [2][]string{
		{"{P} washed the [sheet].", "{P} slept under a thin [sheet].", "{P} made the bed with a clean [sheet].",
			"{P} ironed a cotton [sheet]."},
		{"{P} wrote on a [sheet].", "{P} tore a [sheet] from the notebook.", "{P} printed one more [sheet].",
			"{P} folded the [sheet] into a plane."},
	}},
	{"jam", [2]string{"sweet spread", "many cars"}, [2][]string{
		{"{P} put [jam] on the toast.", "{P} cooked plum [jam].", "{P} opened a jar of [jam].",
			"{P} likes bread with [jam]."},
		{"{P} got stuck in a [jam].", "{P} was late because of a traffic [jam].",
			"{P} left the highway to avoid the [jam].", "{P} waited an hour in the [jam]."},
	}},
}

// Use is an ambiguous word in a sentence about a person.
type Use struct {
	Word            string
	Sense           int // 0 or 1
	Sentence, Gloss string
	Start, End      int // of the word in the sentence
}

// NewUses draws an ambiguous word and two different sentences with it, one about each person, in
// one sense or in both.
func NewUses(r *prng.Source, who []string) (one, other Use) {
	a := Pick(r, ambiguousWords)
	sense := r.IntN(2)
	if r.IntN(2) == 0 {
		two := Distinct(r, a.senses[sense], 2)
		return a.use(sense, two[0], who[0]), a.use(sense, two[1], who[1])
	}
	return a.use(sense, Pick(r, a.senses[sense]), who[0]), a.use(1-sense, Pick(r, a.senses[1-sense]), who[1])
}

// NewUsesOf draws an ambiguous word and different sentences with it, one about each person, four of
// each sense at most.
func NewUsesOf(r *prng.Source, who []string) []Use {
	a := Pick(r, ambiguousWords)
	type place struct{ sense, i int }
	var all []place
	for sense := range a.senses {
		for i := range a.senses[sense] {
			all = append(all, place{sense, i})
		}
	}
	uses := make([]Use, len(who))
	for n, p := range Distinct(r, all, len(who)) {
		uses[n] = a.use(p.sense, a.senses[p.sense][p.i], who[n])
	}
	return uses
}

func (a ambiguous) use(sense int, template, person string) Use {
	before, rest, _ := strings.Cut(fill(template, "P", person), "[")
	word, after, _ := strings.Cut(rest, "]")
	return Use{
		Word: a.word, Sense: sense, Gloss: a.gloss[sense], Sentence: before + word + after, Start: len(before),
		End: len(before) + len(word),
	}
}
