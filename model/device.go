package model

import (
	"errors"
	"fmt"
)

// Device is the hardware to compute on. The zero Device is Auto.
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
var ErrNoCUDA = errors.New("this build has no CUDA engine")

// Check returns an error if this build cannot compute on d, before anything is loaded.
func (d Device) Check() error {
	if d.kind == deviceGPU {
		return ErrNoCUDA
	}
	return nil
}
