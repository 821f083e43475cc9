//go:build !(onednn && cgo)

package model

// withoutONEDNN is the part of messages that tells what a build lacks.
const withoutONEDNN = "; built without onednn (-tags onednn)"

func onednnEngines() []builtin { return nil }
