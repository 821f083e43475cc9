// Package corpus is part of the lab, not of the trainer: it is an endless stream of text about the
// small world of package world. A model pre-trained on it can then be tuned on the tasks of package
// mini. The text is plain documents for span corruption, and pairs of texts that teach the skills
// that the tasks need. Each text is a pure function of a seed and its number, the same on every
// platform, and takes microseconds to make.
//
// There are five streams of pairs:
//
//   - Skill asks one thing of a text, as tasks do.
//   - Several asks several things of one text.
//   - Easy asks about mostly plain texts, so that what decides an answer shows one thing at a time.
//   - Table and Keys have no facts of the world: they ask to find a word of the question in a text,
//     to copy what stands beside it, and to judge whether two words are the same or stand together.
//
// Questions of the last four often have a sign behind them that the target repeats before the
// answer (see slotSigns). So an answer has a place of its own in the source.
//
// # What is held out
//
// What a prompt is tuned for does not occur in pre-training:
//
//   - The examples. One pair of people in eight, and one pair of COPA's scripts in three, is
//     reserved (see world.Side). Some two people of every example of the tasks are a reserved pair,
//     in COPA's case the two scripts; no text here has a reserved pair. So no text here is, or
//     holds, the text of an example; single sentences may recur.
//   - The formats. None of the words by which the templates of package dataset mark a source's
//     parts ("premise:", "hypothesis:", "passage:", "question:", "sentence1:", "choice1:" and so
//     on), none of the tasks' names, no "@placeholder" and no pronoun between asterisks. Parts are
//     marked here by words that are drawn for each text, mostly invented ones.
//   - The labels. No target is one of the labels of the templates: 0, 1, 2, True, False,
//     entailment, contradiction, neutral, not_entailment, choice1, choice2, in any case. Labels
//     here are words, letters or digits from 3 that are drawn for each text, which says itself what
//     they stand for ("yes=zib no=mof: ..."), or the answers that they stand for: yes, no, maybe,
//     same, other, first, second. So a model learns to obey a mapping from answers to labels, and a
//     prompt has to state a mapping that the model has never seen.
//
// ReCoRD's and WSC's targets are names; so are the targets of some skills here, in other formats.
package corpus

import (
	"strings"

	"github.com/dptune/dpt/dataset/internal/world"
)

// Pair is a source text and the target that answers it.
type Pair struct{ Source, Target string }

// heldLabels are the labels of the tasks' templates, in lower case.
var heldLabels = []string{
	"0", "1", "2", "true", "false", "entailment", "contradiction", "neutral", "not_entailment", "choice1", "choice2",
}

// heldMarks are the words of the tasks' templates and their names, in lower case, without the colon
// that follows some of them.
var heldMarks = []string{
	"premise", "hypothesis", "passage", "question", "answer", "paragraph", "sentence1", "sentence2", "word",
	"choice1", "choice2", "query", "entities", "superglue-record", "record", "boolq", "cb", "copa", "multirc", "rte",
	"wic", "wsc", "@placeholder", "@highlight",
}

// isAllowedWord reports whether a word may be a label or a mark: it is neither held out nor a name.
func isAllowedWord(word string) bool {
	return !heldOut[strings.ToLower(word)]
}

// heldOut has the words that are neither labels nor marks here, in lower case.
var heldOut = func() map[string]bool {
	taken := map[string]bool{}
	for _, words := range [][]string{heldLabels, heldMarks, world.People()} {
		for _, w := range words {
			taken[strings.ToLower(w)] = true
		}
	}
	return taken
}()
