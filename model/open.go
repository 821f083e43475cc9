package model

import (
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/tiny"
)

// embeddedName stands for the embedded model where a directory would stand.
const embeddedName = "embedded:tiny"

// openCheckpoint opens the model in dir, or the embedded one for "".
func openCheckpoint(dir string) (*checkpoint.Model, error) {
	if dir == "" {
		return checkpoint.OpenModelFS(tiny.FS(), embeddedName)
	}
	return checkpoint.OpenModel(dir)
}
