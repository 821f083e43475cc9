package model

import (
	"errors"
	"fmt"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/portable"
)

// Device says what computes. The zero Device is Auto.
type Device struct {
	kind deviceKind
	gpu  int
}

type deviceKind int

const (
	deviceAuto deviceKind = iota
	deviceCPU
	deviceGPU
)

var (
	// Auto is the best engine of this build that finds its hardware.
	Auto = Device{kind: deviceAuto}
	// CPU is the best CPU engine of this build.
	CPU = Device{kind: deviceCPU}
)

// GPU is the n-th NVIDIA GPU, from 0.
func GPU(n int) Device { return Device{kind: deviceGPU, gpu: n} }

// String is "auto", "cpu" or "gpu N".
func (d Device) String() string {
	switch d.kind {
	case deviceAuto:
		return "auto"
	case deviceCPU:
		return "cpu"
	default:
		return fmt.Sprintf("gpu %d", d.gpu)
	}
}

// ErrNoCUDA is why a build without CUDA cannot open a GPU.
var ErrNoCUDA = errors.New("this build has no CUDA engine (build with -tags cuda)")

// newEngine opens the engine for d.
func newEngine(d Device, threads int) (engine.Engine, error) {
	if threads < 0 {
		return nil, fmt.Errorf("%d threads, want 0 (one per CPU) or more", threads)
	}
	if d.kind == deviceGPU {
		return nil, fmt.Errorf("%s: %w", d, ErrNoCUDA)
	}
	return portable.New[float32](threads), nil
}
