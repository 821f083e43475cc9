package mini

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

// side is the share of the world that the tasks are made of.
const side = world.Tuning

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

// kind is one task: its directory, its number of classes (1 where a line has no class), how many examples a line holds, how many lines
// give one training example, and how to invent a line, whose class comes of what it tells.
type kind struct {
	dir             string
	classes         int
	examples, lines int
	invent          func(r *prng.Source) (l line, class int)
}

var kinds = []kind{
	{"BoolQ", 2, 1, 1, inventBoolQ},
	{"CB", 3, 1, 1, inventCB},
	{"COPA", 2, 1, 1, inventCOPA},
	{"MultiRC", 1, 6, 1, inventMultiRC},
	{"ReCoRD", 1, 1, 1, inventReCoRD},
	{"RTE", 2, 1, 1, inventRTE},
	{"WiC", 2, 1, 1, inventWiC},
	{"WSC", 2, 1, 2, inventWSC},
}

// maxTries bounds the search for a line that has not occurred yet.
const maxTries = 10000

// files returns the task's files by their names, such as "train.jsonl". The classes of each are as even as its size
// allows, in random order. It fails if the world is too small for the sizes.
func (k kind) files(seed uint64, sizes Sizes) (map[string][]byte, error) {
	files := map[string][]byte{}
	seen := map[string]bool{}
	for _, split := range []struct {
		name            string
		examples, lines int
	}{{"train", sizes.Train, k.lines}, {"val", sizes.Val, 1}, {"test", sizes.Test, 1}} {
		name := split.name + ".jsonl"
		lines := (split.examples + k.examples - 1) / k.examples * split.lines
		content, err := k.file(prng.New("dpt/mini/"+k.dir+"/"+name, seed), lines, split.name == "test", seen)
		if err != nil {
			return nil, fmt.Errorf("cannot make %s: %w", name, err)
		}
		files[name] = content
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

// fresh invents until a line of the class comes that is not in seen.
func (k kind) fresh(r *prng.Source, class int, seen map[string]bool) (line, error) {
	for range maxTries {
		l, is := k.invent(r)
		if is != class {
			continue
		}
		if key := l.key(); !seen[key] {
			seen[key] = true
			return l, nil
		}
	}
	return nil, fmt.Errorf("found no new line of class %d in %d tries after %d lines, expected fewer lines to be asked for", class, maxTries, len(seen))
}

// one is the class of what is true.
func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
