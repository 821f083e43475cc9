package pretrain

import (
	"cmp"
	"slices"

	"github.com/dptune/dpt/model/t5"
)

// Stream is one of a corpus's endless streams of texts.
type Stream struct {
	Seed    uint64
	HeldOut bool // for evaluation, never for training
}

// Corpus is the source of the texts that a model learns from. Text i of a stream is a pure function
// of i and the stream.
type Corpus struct {
	Name string // identifies the corpus in a run's state
	// Pair returns a text, the answer to learn, and the kind of the pair.
	Pair func(s Stream, i uint64) (source, target, kind string)
	// Document returns plain text of at least two bytes, from which spans are taken.
	Document func(s Stream, i uint64) string
}

// spanKind is the kind of examples made of documents.
const spanKind = "spans"

type example struct {
	t5.Pair
	kind string
}

// example is the i-th of a stream.
func (c Corpus) example(s Settings, heldOut bool, i uint64) example {
	from, sequence := Stream{s.Seed, heldOut}, i<<1
	if heldOut {
		sequence++
	}
	r := newRandom(s.Seed, sequence)
	if r.share() < s.Spans {
		text := c.Document(from, i)
		if len(text) > s.MaxBytes {
			text = text[:s.MaxBytes]
		}
		source, target := corrupt(text, s.Noise, s.SpanBytes, s.Model.VocabSize-firstSentinel, r)
		return example{t5.Pair{Source: source, Target: target}, spanKind}
	}
	source, target, kind := c.Pair(from, i)
	return example{t5.Pair{Source: encode(source), Target: encode(target)}, kind}
}

// batch is one step's examples.
type batch struct {
	micro  [][]t5.Pair
	next   uint64 // position in the stream of the next step's first example
	tokens int    // source and target tokens
	target int    // target tokens
}

// batch takes examples from the stream, from position at on, and deals them to micro-batches of
// about equal work.
func (c Corpus) batch(s Settings, at uint64) batch {
	b := batch{micro: make([][]t5.Pair, s.Micro), next: at}
	var pairs []t5.Pair
	for b.tokens < s.BatchTokens {
		p := c.example(s, false, b.next).Pair
		b.next++
		b.tokens += len(p.Source) + len(p.Target)
		b.target += len(p.Target)
		pairs = append(pairs, p)
	}
	slices.SortStableFunc(pairs, func(x, y t5.Pair) int {
		return cmp.Compare(len(y.Source)+len(y.Target), len(x.Source)+len(x.Target))
	})
	load := make([]int, s.Micro)
	for _, p := range pairs {
		least := 0
		for i, l := range load {
			if l < load[least] {
				least = i
			}
		}
		load[least] += len(p.Source) + len(p.Target)
		b.micro[least] = append(b.micro[least], p)
	}
	return b
}
