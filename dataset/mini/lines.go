package mini

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/dptune/dpt/dataset/internal/prng"
	"github.com/dptune/dpt/dataset/internal/world"
)

// side is the part of the world that the tasks use.
const side = world.Tuning

// line is one line of a file, before its idx fields are numbered.
type line interface {
	// key identifies the line's content: two lines with the same content have the same key.
	key() string
	// number sets the line's idx fields.
	number(c *counter)
	// unlabel removes the labels, which a test file does not have.
	unlabel()
}

// counter counts the lines of a file, and the questions and answers in them.
type counter struct{ line, question, answer int }

// postIncrement increments a count and returns the value before.
func postIncrement(n *int) int {
	*n++
	return *n - 1
}

// generator makes the files of one task.
type generator struct {
	dir      string // the task's directory, such as "BoolQ"
	classes  int    // 1 where a line has no class
	examples int    // examples in a line
	lines    int    // lines that give one training example
	// invent draws a line. Its class follows from what the line tells.
	invent func(r *prng.Source) (l line, class int)
}

var generators = []generator{
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

// files returns the task's files by their names, such as "train.jsonl". The classes of each are as
// even as its size allows, in random order. It fails if the world is too small for the sizes.
func (k generator) files(seed uint64, sizes Sizes) (map[string][]byte, error) {
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
func (k generator) file(r *prng.Source, lines int, unlabeled bool, seen map[string]bool) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	var c counter
	for i, place := range r.Perm(lines) {
		l, err := k.unseenLine(r, place%k.classes, seen)
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

// unseenLine draws lines until one of the class is not in seen.
func (k generator) unseenLine(r *prng.Source, class int, seen map[string]bool) (line, error) {
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
	return nil, fmt.Errorf("found no new line of class %d in %d tries after %d lines, want fewer lines to be asked for",
		class, maxTries, len(seen))
}

// classOf is the class of a statement: 1 where it is true.
func classOf(b bool) int {
	if b {
		return 1
	}
	return 0
}
