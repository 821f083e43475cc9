package main

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/dataset/lab/corpus"
	"github.com/dptune/dpt/model/lab/pretrain"
)

// openCorpus opens the texts.
func openCorpus(cmd *cli.Command, documents, pairs string, s *pretrain.Settings) (pretrain.Corpus, error) {
	switch {
	case documents == "" && pairs == "":
		return worldCorpus(), nil
	case documents == "" && s.Spans > 0:
		if cmd.Changed("spans") {
			return pretrain.Corpus{}, cmd.Usagef("--spans %v without --documents, want 0", s.Spans)
		}
		s.Spans = 0
	case pairs == "" && s.Spans < 1:
		if cmd.Changed("spans") {
			return pretrain.Corpus{}, cmd.Usagef("--spans %v without --pairs, want 1", s.Spans)
		}
		s.Spans = 1
	}
	return pretrain.FileCorpus(documents, pairs)
}

// lessons determine the pairs of a run by their numbers. A pair below until comes from one of the
// streams, which take turns. A run begins with what all other skills build on, and what a model
// learns slowly when it is one skill among many: copying, then finding a word again and comparing
// two words. Then come texts with many questions each, with a separate place for each answer, since
// these teach most for the cost of reading a text. In the end more pairs ask one thing only, as
// tasks do.
var lessons = []struct {
	until   uint64
	streams string
}{
	{20_000, "c"},
	{192_000, "kkkckkkekckkkskkkkvk"},
	{1_150_000, "vektvektvektvektves"},
	{math.MaxUint64, "svestvksevtsvektsve"},
}

// streams are the streams of corpus by their letters in lessons.
var streams = map[byte]func(seed, i uint64) (corpus.Pair, string){
	'c': copyPair, 'k': corpus.Keys, 't': corpus.Table, 'e': corpus.Easy, 'v': corpus.Several, 's': corpus.Skill,
}

// copyPair draws from those pairs of Skill that only ask to copy or to map.
func copyPair(seed, i uint64) (p corpus.Pair, kind string) {
	const apart = 1 << 40 // leads to numbers that no other pair draws
	for p, kind = corpus.Skill(seed, i); kind != "copy" && kind != "map"; p, kind = corpus.Skill(seed, i) {
		i += apart
	}
	return p, kind
}

// worldPair is pair i of a seed, as lessons determine it.
func worldPair(seed, i uint64) (p corpus.Pair, kind string) {
	for _, l := range lessons {
		if i < l.until {
			return streams[l.streams[i%uint64(len(l.streams))]](seed, i)
		}
	}
	panic("lessons end")
}

// worldCorpus is the text about the small world that the embedded data set comes from.
func worldCorpus() pretrain.Corpus {
	seed := func(s pretrain.Stream) uint64 {
		if s.HeldOut {
			return ^s.Seed
		}
		return s.Seed
	}
	c := pretrain.Corpus{
		Document: func(s pretrain.Stream, i uint64) string { return corpus.Document(seed(s), i) },
		Pair: func(s pretrain.Stream, i uint64) (source, target, kind string) {
			p, kind := corpus.Skill(seed(s), i)
			if !s.HeldOut {
				p, kind = worldPair(s.Seed, i)
			}
			return p.Source, p.Target, kind
		},
	}
	// A run must not continue with a program whose texts differ: the name holds a digest of the
	// texts.
	h := sha256.New()
	fmt.Fprintln(h, lessons)
	for i := range uint64(1000) {
		source, target, kind := c.Pair(pretrain.Stream{}, i)
		fmt.Fprintf(h, "%q %q %q %q\n", c.Document(pretrain.Stream{}, i), source, target, kind)
		for _, letter := range slices.Sorted(maps.Keys(streams)) {
			p, _ := streams[letter](0, i)
			fmt.Fprintf(h, "%q\n", p)
		}
	}
	c.Name = fmt.Sprintf("world:%x", h.Sum(nil)[:8])
	return c
}
