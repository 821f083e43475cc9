package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"strings"
)

// The names of the splits, and of their files without ".jsonl".
const (
	splitTrain = "train"
	splitVal   = "val"
	splitTest  = "test"
)

// Split is one file of a task as texts. Its slices belong to it: do not change them. It is safe for
// concurrent reading.
type Split struct {
	Task     Task
	Name     string // "train", "val" or "test"
	Template Template
	// Train holds the training examples: one per answer of each ReCoRD query, only the true ones of
	// WSC, all of the other tasks. It is empty where the split has no labels.
	Train []Example
	// Eval holds the examples to decode, once each: a ReCoRD query with all its answers, all
	// examples of the other tasks.
	Eval []Example
	// Labeled reports whether the file has labels. Only a test split may lack them.
	Labeled bool
	// Digest is the SHA-256 of the task, the template, the split's name and the file's bytes; of a
	// KShot split, of its parent's digest, k and the seed.
	Digest [32]byte
}

// Load reads TASKDIR/SPLIT.jsonl of fsys, such as ReCoRD/train.jsonl. TASKDIR is matched in any
// case. split is "train", "val" (or "validation") or "test"; "" as tmpl is the default template.
//
// An error is one line. It names the file and, where a line is at fault, its number, what was found
// there and what was wanted. A file without examples is an error, and so is a training split with
// nothing to train on. Fields that the task does not need are ignored, and blank lines too.
func Load(fsys fs.FS, task Task, split string, tmpl Template) (*Split, error) {
	if task.spec == nil {
		return nil, fmt.Errorf("no task given, want one of %s", strings.Join(Tasks(), ", "))
	}
	tmpl, err := ParseTemplate(string(tmpl))
	if err != nil {
		return nil, err
	}
	if split, err = resolveSplit(split); err != nil {
		return nil, err
	}
	dir, err := taskDir(fsys, task)
	if err != nil {
		return nil, err
	}
	name := path.Join(dir, split+".jsonl")
	shown := displayPath(fsys, name)
	file, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot open the %s split of %s: %w", split, task.Name(), renamePath(err, shown))
	}
	defer file.Close()
	s, err := read(file, shown, task, split, tmpl, maxLine)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// read is Load of an open file. shown is its name in errors; longest bounds a line in bytes.
func read(r io.Reader, shown string, task Task, split string, tmpl Template, longest int) (*Split, error) {
	digest := newDigest("dpt/dataset/split/v1", task.Name(), string(tmpl), split)
	lines := newLineReader(io.TeeReader(r, digest), longest)
	b := newBuilder(task.spec, tmpl, split)
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", shown, lines.line, err)
		}
		o := parseLine(line)
		if o.ok() {
			task.spec.parse(b, o)
		}
		if !o.ok() {
			return nil, fmt.Errorf("%s:%d: %w", shown, lines.line, *o.err)
		}
	}
	if len(b.eval) == 0 {
		return nil, fmt.Errorf("%s has no examples, want one JSON object per line", shown)
	}
	if split == splitTrain && len(b.train) == 0 {
		return nil, fmt.Errorf("%s has nothing to train on: none of its %d examples is labeled true, want at least one",
			shown, len(b.eval))
	}
	return &Split{
		Task: task, Name: split, Template: tmpl,
		Train: b.train, Eval: b.eval, Labeled: *b.labeled,
		Digest: [32]byte(digest.Sum(nil)),
	}, nil
}

// HasSplit reports whether fsys has a file for the split, without reading it.
func HasSplit(fsys fs.FS, task Task, split string) bool {
	split, err := resolveSplit(split)
	if task.spec == nil || err != nil {
		return false
	}
	dir, err := taskDir(fsys, task)
	if err != nil {
		return false
	}
	info, err := fs.Stat(fsys, path.Join(dir, split+".jsonl"))
	return err == nil && !info.IsDir()
}

// resolveSplit returns the split that a name or its alias stands for.
func resolveSplit(name string) (string, error) {
	switch name {
	case splitTrain, splitVal, splitTest:
		return name, nil
	case "validation":
		return splitVal, nil
	}
	return "", fmt.Errorf("unknown split %q, want %q, %q or %q", name, splitTrain, splitVal, splitTest)
}

// taskDir finds the directory of a task: the published name, else the first one in byte order that
// differs only in case.
func taskDir(fsys fs.FS, task Task) (string, error) {
	want := task.Dir()
	if info, err := fs.Stat(fsys, want); err == nil && info.IsDir() {
		return want, nil
	}
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return "", fmt.Errorf("cannot list the data directory: %w", renamePath(err, displayPath(fsys, ".")))
	}
	for _, e := range entries {
		if !strings.EqualFold(e.Name(), want) {
			continue
		}
		// A symbolic link to a directory counts too, so the entry's own type is not enough.
		if info, err := fs.Stat(fsys, e.Name()); err == nil && info.IsDir() {
			return e.Name(), nil
		}
	}
	return "", fmt.Errorf("no data for task %s: found no directory %s, want it to hold %s.jsonl, %s.jsonl, %s.jsonl",
		task.Name(), displayPath(fsys, want), splitTrain, splitVal, splitTest)
}

// renamePath replaces the path in an error of a file system by shown, which the user can find.
func renamePath(err error, shown string) error {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		return &fs.PathError{Op: perr.Op, Path: shown, Err: perr.Err}
	}
	return err
}

// newDigest starts a SHA-256 with parts. The length precedes each part, so that no two lists of
// parts give the same bytes.
func newDigest(parts ...string) hash.Hash {
	h := sha256.New()
	for _, p := range parts {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return h
}
