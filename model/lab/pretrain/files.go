package pretrain

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
)

// FileCorpus is a corpus of two files: documents, one per line, and pairs, one JSON object
// {"source": …, "target": …} per line, with an optional "kind". One line in fifty is held out,
// and every text is drawn at random. Without documents (""), Settings.Spans must be 0; without
// pairs, 1.
func FileCorpus(documents, pairs string) (Corpus, error) {
	h := sha256.New()
	var docs []string
	var list []filePair
	err := errors.Join(
		readLines(documents, h, func(line []byte) error {
			if len(line) < 2 {
				return fmt.Errorf("%d bytes, want 2 or more", len(line))
			}
			docs = append(docs, string(line))
			return nil
		}),
		readLines(pairs, h, func(line []byte) error {
			p := filePair{Kind: "pairs"}
			if err := json.Unmarshal(line, &p); err != nil {
				return err
			}
			if p.Source == "" || p.Target == "" {
				return errors.New(`source or target is empty, want {"source": …, "target": …}`)
			}
			list = append(list, p)
			return nil
		}))
	if err != nil {
		return Corpus{}, err
	}
	return Corpus{
		Name:     fmt.Sprintf("files:%x", h.Sum(nil)),
		Document: func(s Stream, i uint64) string { return docs[s.line(len(docs), 2*i)] },
		Pair: func(s Stream, i uint64) (source, target, kind string) {
			p := list[s.line(len(list), 2*i+1)]
			return p.Source, p.Target, p.Kind
		},
	}, nil
}

type filePair struct{ Source, Target, Kind string }

const heldOutOf = 50

// line draws one of n lines, n at least heldOutOf: those whose number is a multiple of heldOutOf
// are held out.
func (s Stream) line(n int, i uint64) int {
	r := newRandom(s.Seed^0x6c696e65, i)
	groups := n / heldOutOf
	if s.HeldOut {
		return heldOutOf * r.below(groups)
	}
	return heldOutOf*r.below(groups) + 1 + r.below(heldOutOf-1)
}

// readLines passes every line of a file to f and the whole file to h.
func readLines(path string, h hash.Hash, f func([]byte) error) error {
	if path == "" {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close() // read only
	lines := bufio.NewScanner(io.TeeReader(file, h))
	lines.Buffer(nil, 1<<24)
	n := 0
	for lines.Scan() {
		n++
		if err := f(lines.Bytes()); err != nil {
			return fmt.Errorf("%s: line %d: %w", path, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if n < heldOutOf {
		return fmt.Errorf("%s: %d lines, want at least %d: one in %d is held out", path, n, heldOutOf, heldOutOf)
	}
	return nil
}
