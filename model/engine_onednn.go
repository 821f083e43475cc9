//go:build onednn && cgo

package model

import (
	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/onednn"
)

// withoutONEDNN is the part of messages that tells what a build lacks.
const withoutONEDNN = ""

func onednnEngines() []builtin {
	return []builtin{{"onednn", []string{f32, bf16}, true, func(o Options, dtype string) (engine.Engine, error) {
		return onednn.New(onednn.Options{Threads: o.Threads, BF16: dtype == bf16, Plain: o.DisablePacking})
	}}}
}
