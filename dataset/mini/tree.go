package mini

import (
	"bytes"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
)

// tree is a read-only file system of directories. The files of a directory are made when it or one
// of them is first opened.
type tree map[string]func() (map[string][]byte, error)

// fileNames are the files of each directory.
var fileNames = []string{"test.jsonl", "train.jsonl", "val.jsonl"}

// Open implements fs.FS.
func (t tree) Open(name string) (fs.File, error) {
	fail := func(err error) (fs.File, error) { return nil, &fs.PathError{Op: "open", Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	if name == "." {
		d := &directory{node: node{name: ".", mode: fs.ModeDir | 0o555}}
		for _, dir := range slices.Sorted(maps.Keys(t)) {
			d.entries = append(d.entries, fs.FileInfoToDirEntry(node{name: dir, mode: fs.ModeDir | 0o555}))
		}
		return d, nil
	}
	dir, base, within := strings.Cut(name, "/")
	files, ok := t[dir]
	if !ok || within && !slices.Contains(fileNames, base) {
		return fail(fs.ErrNotExist)
	}
	content, err := files()
	if err != nil {
		return fail(err)
	}
	if !within {
		d := &directory{node: node{name: dir, mode: fs.ModeDir | 0o555}}
		for _, base := range fileNames {
			d.entries = append(d.entries,
				fs.FileInfoToDirEntry(node{name: base, size: len(content[base]), mode: 0o444}))
		}
		return d, nil
	}
	return &file{node{base, len(content[base]), 0o444}, bytes.NewReader(content[base])}, nil
}

// node is the information about a file or directory that Stat returns.
type node struct {
	name string
	size int
	mode fs.FileMode
}

func (n node) Name() string       { return n.name }
func (n node) Size() int64        { return int64(n.size) }
func (n node) Mode() fs.FileMode  { return n.mode }
func (n node) ModTime() time.Time { return time.Time{} }
func (n node) IsDir() bool        { return n.mode.IsDir() }
func (n node) Sys() any           { return nil }

type file struct {
	node
	*bytes.Reader
}

func (f *file) Size() int64                { return f.node.Size() }
func (f *file) Stat() (fs.FileInfo, error) { return f.node, nil }
func (f *file) Close() error               { return nil }

type directory struct {
	node
	entries []fs.DirEntry
	read    int
}

func (d *directory) Stat() (fs.FileInfo, error) { return d.node, nil }
func (d *directory) Close() error               { return nil }

func (d *directory) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: fs.ErrInvalid}
}

// ReadDir implements fs.ReadDirFile.
func (d *directory) ReadDir(n int) ([]fs.DirEntry, error) {
	rest := d.entries[d.read:]
	if n > 0 && len(rest) == 0 {
		return nil, io.EOF
	}
	if n > 0 && n < len(rest) {
		rest = rest[:n]
	}
	d.read += len(rest)
	return slices.Clone(rest), nil
}
