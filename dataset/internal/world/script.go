package world

import (
	"slices"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// script is something that happens to people: two causes and two effects. A cause and an effect of
// one script share no word except "a", "the" and the like.
type script struct{ causes, effects [2]string }

var scripts = []script{
	{[2]string{"walked in the rain", "fell into the lake"}, [2]string{"got wet", "put on dry clothes"}},
	{[2]string{"ate ten cakes", "drank bad milk"}, [2]string{"felt sick", "had a belly ache"}},
	{[2]string{"ran a long race", "worked all night"}, [2]string{"was tired", "went to bed"}},
	{[2]string{"studied hard", "did the homework"}, [2]string{"passed the test", "got a top mark"}},
	{[2]string{"missed the bus", "overslept"}, [2]string{"came late to school", "began work at noon"}},
	{[2]string{"cut an onion", "saw a sad film"}, [2]string{"cried", "wiped away tears"}},
	{[2]string{"heard a joke", "watched a clown"}, [2]string{"laughed", "giggled"}},
	{[2]string{"lay in the sun", "used no sun cream"}, [2]string{"turned red", "got a sunburn"}},
	{[2]string{"touched a hot stove", "grabbed a burning log"}, [2]string{"hurt a finger", "got a blister"}},
	{[2]string{"stole a car", "robbed a store"}, [2]string{"went to jail", "was arrested"}},
	{[2]string{"won the lottery", "dug up a treasure"}, [2]string{"became rich", "bought a castle"}},
	{[2]string{"lost the purse", "spent every coin"}, [2]string{"was broke", "could not pay"}},
	{[2]string{"skipped lunch", "ate nothing"}, [2]string{"was starving", "ordered a pizza"}},
	{[2]string{"chewed salty chips", "crossed the desert"}, [2]string{"was thirsty", "drank much water"}},
	{[2]string{"slipped on ice", "fell off a ladder"}, [2]string{"broke a leg", "walked on crutches"}},
	{[2]string{"saw a ghost", "met a bear"}, [2]string{"screamed", "ran away in fear"}},
	{[2]string{"heard a siren", "stood by the drums"}, [2]string{"covered both ears", "became deaf"}},
	{[2]string{"planted seeds", "dug the garden"}, [2]string{"grew flowers", "picked tulips"}},
	{[2]string{"told a lie", "broke a window"}, [2]string{"was punished", "said sorry"}},
	{[2]string{"helped a neighbor", "saved a child"}, [2]string{"was thanked", "was hugged"}},
	{[2]string{"slept in the snow", "lost the warm coat"}, [2]string{"froze", "shivered"}},
	{[2]string{"rode over a nail", "cycled over glass"}, [2]string{"got a flat tire", "mended the bike"}},
	{[2]string{"lit a candle", "flipped the switch"}, [2]string{"could see in the dark", "had light"}},
	{[2]string{"smelled pepper", "breathed in dust"}, [2]string{"sneezed", "got an itchy nose"}},
}

// confusable are pairs of scripts where the cause of one might explain the effect of the other.
var confusable = [][2]int{
	{0, 20}, {0, 23}, {1, 12}, {1, 20}, {2, 3}, {2, 4}, {2, 13}, {2, 17}, {3, 19}, {4, 21}, {5, 11}, {5, 14}, {5, 15},
	{5, 18}, {7, 13}, {8, 14}, {9, 10}, {9, 18}, {11, 12}, {14, 15}, {15, 16}, {20, 23},
}

// Scripts is the number of scripts.
func Scripts() int { return len(scripts) }

// reservedScripts reports whether two scripts are a reserved pair: never side by side in a text for
// pre-training, and always side by side in a text for tuning. One pair in three is reserved.
func reservedScripts(a, b int) bool { return a != b && (a+b)%3 == 0 }

// Scripts draws two scripts that may stand side by side and are not confusable.
func (s Side) Scripts(r *prng.Source) (one, other int) {
	for {
		one, other = r.IntN(len(scripts)), r.IntN(len(scripts))
		mixed := slices.Contains(confusable, [2]int{min(one, other), max(one, other)})
		if one != other && !mixed && reservedScripts(one, other) == (s == Tuning) {
			return one, other
		}
	}
}

// ScriptsOf draws a script and n others. All of them may stand side by side, and none of the others
// is confusable with the one.
func (s Side) ScriptsOf(r *prng.Source, n int) (one int, others []int) {
	for {
		one, others = r.IntN(len(scripts)), nil
		for range 64 {
			other := r.IntN(len(scripts))
			mixed := slices.Contains(confusable, [2]int{min(one, other), max(one, other)})
			if other == one || mixed || slices.Contains(others, other) ||
				slices.ContainsFunc(append(others, one), func(o int) bool {
					return reservedScripts(o, other) != (s == Tuning)
				}) {
				continue
			}
			if others = append(others, other); len(others) == n {
				return one, others
			}
		}
	}
}

// Cause draws a cause of script i, without the person who is the subject.
func Cause(r *prng.Source, i int) string { return Pick(r, scripts[i].causes[:]) }

// Effect draws an effect of script i, without the person who is the subject.
func Effect(r *prng.Source, i int) string { return Pick(r, scripts[i].effects[:]) }
