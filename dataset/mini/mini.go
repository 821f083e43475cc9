// Package mini embeds a small data set for SuperGLUE's eight tasks, in SuperGLUE's file formats, so that everything can be tried
// without a download. Package world writes it; its texts are about a small world of its own and come from nowhere else.
package mini

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:generate go run ./gen

//go:embed data
var data embed.FS

// FS returns the data set: a directory for each task, such as BoolQ, with train.jsonl (64 lines), val.jsonl and test.jsonl (32
// each; the test lines have no labels).
func FS() fs.FS {
	sub, err := fs.Sub(data, "data")
	if err != nil {
		panic(fmt.Sprintf("mini: the embedded directory cannot be opened: %v", err)) // only if its name were invalid
	}
	return sub
}
