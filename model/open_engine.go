package model

import "github.com/dptune/dpt/model/engine"

// OpenEngine opens the engine that Open would compute on, alone: for those who bring their own weights. The caller closes it.
func OpenEngine(o Options) (engine.Engine, error) {
	e, _, err := newEngine(o)
	return e, err
}
