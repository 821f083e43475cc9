// Package world invents examples for SuperGLUE's eight tasks about a small world of people, things, places and towns. A careful
// reader can answer every one of them from its text, or in WSC's, COPA's and WiC's case with the common sense that theirs ask
// for. Texts are short, since a byte-level model reads them letter by letter: a source has at most 160
// bytes, one of MultiRC or ReCoRD at most 250.
//
// The files are a pure function of a seed and the sizes. No line's content occurs twice, within a split or in two of them, so a
// model cannot score on validation data by having learned it by heart.
package world

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/dptune/dpt/dataset/internal/prng"
)

// Seed is the seed of the embedded data set.
const Seed = 2023

// Sizes are the numbers of lines of each task's three files.
type Sizes struct{ Train, Val, Test int }

// Embedded are the sizes of the embedded data set.
var Embedded = Sizes{Train: 64, Val: 32, Test: 32}

// line is one line of a file before it has its numbers.
type line interface {
	// key tells lines of one content from others.
	key() string
	// number sets the line's idx fields.
	number(c *counter)
	// unlabel removes what a test file does not say.
	unlabel()
}

// counter counts the lines of a file, and the questions and answers in them.
type counter struct{ line, question, answer int }

// next returns the value of a count and moves it on.
func next(n *int) int {
	*n++
	return *n - 1
}

// kind is one task: its directory, its number of classes (1 where a line has no class) and how to invent a line of a class.
type kind struct {
	dir     string
	classes int
	invent  func(r *prng.Source, class int) line
}

var kinds = []kind{
	{"BoolQ", 2, inventBoolQ},
	{"CB", 3, inventCB},
	{"COPA", 2, inventCOPA},
	{"MultiRC", 1, inventMultiRC},
	{"ReCoRD", 1, inventReCoRD},
	{"RTE", 2, inventRTE},
	{"WiC", 2, inventWiC},
	{"WSC", 2, inventWSC},
}

// maxTries bounds the search for a line that has not occurred yet.
const maxTries = 10000

// Generate returns the files by their names, such as "BoolQ/train.jsonl". The classes of each file are as even as its size
// allows, in random order. It fails if the world is too small for the sizes.
func Generate(seed uint64, sizes Sizes) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, k := range kinds {
		seen := map[string]bool{}
		for _, split := range []struct {
			name  string
			lines int
		}{{"train", sizes.Train}, {"val", sizes.Val}, {"test", sizes.Test}} {
			name := k.dir + "/" + split.name + ".jsonl"
			content, err := k.file(prng.New("dpt/mini/"+name, seed), split.lines, split.name == "test", seen)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			files[name] = content
		}
	}
	return files, nil
}

// file writes a number of lines that are not in seen, and adds them to it.
func (k kind) file(r *prng.Source, lines int, unlabeled bool, seen map[string]bool) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	var c counter
	for i, place := range r.Perm(lines) {
		l, err := k.fresh(r, place%k.classes, seen)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		l.number(&c)
		if unlabeled {
			l.unlabel()
		}
		if err := enc.Encode(l); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return out.Bytes(), nil
}

// fresh invents until a line comes that is not in seen.
func (k kind) fresh(r *prng.Source, class int, seen map[string]bool) (line, error) {
	for range maxTries {
		l := k.invent(r, class)
		if key := l.key(); !seen[key] {
			seen[key] = true
			return l, nil
		}
	}
	return nil, fmt.Errorf("found no new line in %d tries after %d lines, expected fewer lines to be asked for", maxTries, len(seen))
}
