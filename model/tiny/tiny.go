// Package tiny holds the embedded default: a T5 small enough to be part of the program, and pre-trained, so that a prompt has something to ask for.
//
// It is a T5 v1.1 (gated GELU, output projection of its own) of four encoder and two decoder layers, d_model 192, 2.9 million weights in bfloat16, with
// ByT5's byte-level vocabulary of 384, in the files and the layout that Transformers' save_pretrained writes.
//
// # How it was made
//
// By [github.com/dptune/dpt/model/lab/pretrain] on two CPU cores, from random weights and text that [github.com/dptune/dpt/dataset/lab/corpus] generates: nine in ten
// examples are pairs of source and target that teach skills, the others documents with spans taken out. provenance.json says the rest: the command with its
// seed, the steps and tokens, the date, what the model can do on texts that the run had not seen, and the digests of the files that came out. A later run
// takes the model's place by
//
//	go run ./model/tiny/internal/embed RUN
//
// # What it has not seen
//
// The examples, formats and labels of the embedded data set (package dataset/mini) and of SuperGLUE: package dataset/lab/corpus says exactly what is
// held out and a test proves it. So what a prompt brings about on those tasks, it has brought about; what it can rely on is reading the small world's
// sentences and obeying mappings from answers to labels.
//
// # License
//
// The weights are this project's own work, made from text of its own, and under its license like the rest of it.
package tiny

import (
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

// Name is what messages, logs and reports call the model, in the place of the directory that another model has.
const Name = "embedded"

var opened = sync.OnceValues(func() (*checkpoint.Model, error) { return checkpoint.OpenModelFS(FS(), Name) })

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
