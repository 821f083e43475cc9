// Package mini is a small data set for SuperGLUE's eight tasks, in SuperGLUE's file formats, so
// that everything can be tried without a download. It is made in memory from a seed when it is
// read. All of it comes from the small world of package world.
//
// A careful reader can answer every example from its text (COPA, WiC and WSC also need common
// sense, as SuperGLUE's do), and every label follows from the facts in the text. Labels are
// balanced. No surface cue tells them: an example and its opposite have the same words, so that a
// linear model of words and pairs of words does no better than chance. A test shows that.
//
// The tasks, with an example of each (DPT template):
//
//	BoolQ    question: is the cup red passage: Ann has a red cup. Bob has a blue hat.
//	         -> 1
//	CB       premise: Eve knows that Bob sang, hopes that Kim fell and lied that Gus won.
//	         hypothesis: Kim fell -> 2 (neutral)
//	COPA     premise: Ann slipped on ice. choice1: She felt sick. choice2: She broke a leg.
//	         -> 1
//	MultiRC  question: What did Bob buy? answer: A fan paragraph: Ann bought a cup and a fan.
//	         Bob bought a ... -> 0
//	ReCoRD   superglue-record record query: @placeholder got a cup from somebody.
//	         entities: ... passage: ... -> Bob
//	RTE      premise: Ann gave Bob a cup. hypothesis: Bob got a cup from Ann.
//	         -> 0 (entailment)
//	WiC      sentence1: Bob fished from the bank. sentence2: Ann robbed a bank. word: bank
//	         -> 0
//	WSC      Ann was fed by Eve because * she * was hungry. -> Ann
//
// Texts are short, since byte-level models read them letter by letter. A source has at most 160
// bytes, one of ReCoRD at most 220.
package mini

import (
	"io/fs"
	"sync"
)

// Seed is the seed of FS.
const Seed = 2023

// Sizes are the minimum numbers of examples in each task's splits. A line of MultiRC holds six
// examples, and one of two lines of WSC is a training example.
type Sizes struct{ Train, Val, Test int }

// Standard are the sizes of FS.
var Standard = Sizes{Train: 512, Val: 256, Test: 256}

// FS returns the data set: a directory for each task, such as BoolQ, with train.jsonl, val.jsonl
// and test.jsonl. The lines of test.jsonl have no labels.
func FS() fs.FS { return standard() }

var standard = sync.OnceValue(func() fs.FS { return New(Seed, Standard) })

// New returns a data set of another seed or of other sizes. A task's files are made when one of
// them is first opened; if the world is too small for the sizes, Open returns an error. The files
// are a pure function of the seed and the sizes. No line's content occurs twice, within a split or
// in two of them.
func New(seed uint64, sizes Sizes) fs.FS {
	tree := make(tree, len(generators))
	for _, k := range generators {
		tree[k.dir] = sync.OnceValues(func() (map[string][]byte, error) { return k.files(seed, sizes) })
	}
	return tree
}
