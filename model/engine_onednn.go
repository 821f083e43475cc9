//go:build onednn && cgo

package model

import (
	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/onednn"
)

// withoutONEDNN says in messages what a build lacks.
const withoutONEDNN = ""

func onednnEngines() []builtin {
	return []builtin{{"onednn", []string{f32, bf16}, func(threads int, dtype string) (engine.Engine, error) {
		return onednn.New(onednn.Options{Threads: threads, BF16: dtype == bf16})
	}}}
}
