//go:build onednn && cgo

package pretrain

import (
	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/onednn"
)

func init() {
	benchEngines["onednn-f32"] = func() (engine.Engine, error) { return onednn.New(onednn.Options{Threads: 1}) }
	benchEngines["onednn-bf16"] = func() (engine.Engine, error) {
		return onednn.New(onednn.Options{Threads: 1, BF16: true})
	}
}
