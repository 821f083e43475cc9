//go:build !(onednn && cgo)

package model

// withoutONEDNN says in messages what a build lacks.
const withoutONEDNN = "; built without onednn (-tags onednn)"

func onednnEngines() []builtin { return nil }
