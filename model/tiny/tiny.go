// Package tiny holds a T5 small enough to be part of the program: what is
// trained against when no model is given.
//
// It is a T5 v1.0 of two encoder and two decoder layers, d_model 64, in the
// files and the layout that Transformers' save_pretrained writes, with ByT5's
// byte-level vocabulary of 384. Its weights are random, drawn from a seed as
// Transformers initializes a T5 (the scheme of Mesh TensorFlow) with an
// initializer_factor of 1.5: at 1 the final norm leaves the logits so narrow
// that no prompt can bring the loss below about 2.
package tiny

import (
	"embed"
	"io/fs"
	"sync"

	"github.com/dptune/dpt/model/checkpoint"
)

//go:generate go run ./internal/generate -out data

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

var opened = sync.OnceValues(func() (*checkpoint.Model, error) { return checkpoint.OpenModelFS(FS(), "embedded model") })

// Open opens the model. Its weights are read, and its digest is computed, once in a process.
func Open() (*checkpoint.Model, error) {
	m, err := opened()
	if err != nil {
		return nil, err
	}
	return m.Reopen(m.Name()), nil
}
