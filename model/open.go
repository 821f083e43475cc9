package model

import (
	"errors"

	"github.com/dptune/dpt/model/checkpoint"
)

// openCheckpoint opens the model in dir.
func openCheckpoint(dir string) (*checkpoint.Model, error) {
	if dir == "" {
		return nil, errors.New("no model directory given")
	}
	return checkpoint.OpenModel(dir)
}
