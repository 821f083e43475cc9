package model

import "github.com/dptune/dpt/model/engine"

// OpenEngine opens the engine that Open would compute on, alone: for those who bring their own weights. The caller closes it.
func OpenEngine(o Options) (engine.Engine, error) {
	e, _, err := newEngine(o)
	return e, err
}

// Numerics identifies what decides the bits of an engine's results: equal on two machines, they compute the same bits. Ask when the weights are there.
func Numerics(e engine.Engine) string { return numerics(e) }
