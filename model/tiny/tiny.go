// Package tiny holds the embedded model: a T5 small enough to be part of the program, and
// pre-trained, so that a prompt has skills to build on.
//
// It is a T5 v1.1 (gated GELU, output projection of its own) of four encoder and two decoder
// layers, d_model 192, 2.9 million weights in bfloat16, with ByT5's byte-level vocabulary of 384,
// in the files and the layout that Transformers' save_pretrained writes.
//
// # How it was made
//
// [github.com/dptune/dpt/model/lab/pretrain] made it on two CPU cores, from random weights and text
// that [github.com/dptune/dpt/dataset/lab/corpus] generates: nine in ten examples are pairs of
// source and target that teach skills, the others documents with spans taken out. provenance.json
// has the details: the command with its seed, the steps and tokens, the date, the model's scores on
// texts that the run had not seen, and the digests of its files. To replace the model by that of
// another run:
//
//	go run ./model/tiny/internal/embed RUN
//
// # What it has not seen
//
// It has seen neither the examples, formats and labels of the embedded data set (package
// dataset/mini) nor those of SuperGLUE: package dataset/lab/corpus documents exactly what is held
// out, and a test proves it. So the score on those tasks is the prompt's own achievement; all it
// can build on is a model that reads the small world's sentences and follows mappings from answers
// to labels.
//
// # License
//
// The weights are this project's own work, made from text of its own, and under its license like
// the rest of it.
package tiny

import (
	"cmp"
	"embed"
	"io/fs"
	"sync"

	"github.com/dptune/dpt/model/checkpoint"
)

//go:embed data/config.json data/model.safetensors data/tokenizer_config.json
var data embed.FS

// FS returns the model directory: config.json, model.safetensors and
// tokenizer_config.json.
func FS() fs.FS {
	sub, err := fs.Sub(data, "data")
	if err != nil {
		panic(err) // "data" is a valid path, which is all that fs.Sub checks
	}
	return sub
}

// Name is what messages, logs and reports call the model, in the place of the directory that
// another model has.
const Name = "embedded"

var opened = sync.OnceValues(func() (*checkpoint.Model, error) { return checkpoint.OpenModelFS(FS(), Name) })

// NameOf is what messages, logs and reports call the model in a directory; "" is the embedded one.
func NameOf(dir string) string { return cmp.Or(dir, Name) }

// OpenModel opens the model directory dir, or the embedded model if dir is "".
func OpenModel(dir string) (*checkpoint.Model, error) {
	if dir == "" {
		return Open()
	}
	return checkpoint.OpenModel(dir)
}

// Open opens the embedded model. A process reads its weights and computes its digest once.
func Open() (*checkpoint.Model, error) {
	m, err := opened()
	if err != nil {
		return nil, err
	}
	return m.Reopen(m.Name()), nil
}
