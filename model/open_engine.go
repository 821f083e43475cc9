package model

import "github.com/dptune/dpt/model/engine"

// OpenEngine opens the engine that Open would compute on, without a model, for callers with weights
// of their own. The caller closes it.
func OpenEngine(o Options) (engine.Engine, error) {
	e, _, err := newEngine(o)
	return e, err
}
