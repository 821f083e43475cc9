package model

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/portable"
)

const auto = "auto"

// The types that products are computed in.
const (
	f32  = "f32"
	bf16 = "bf16"
)

// builtin is a CPU engine of this build.
type builtin struct {
	name   string
	dtypes []string
	packs  bool // it packs weights, unless Options.DisablePacking
	open   func(o Options, dtype string) (engine.Engine, error)
}

// builtins are the engines of this build, best first.
func builtins() []builtin {
	return append(onednnEngines(),
		builtin{"portable", []string{f32}, false, func(o Options, _ string) (engine.Engine, error) {
			return portable.New[float32](o.Threads), nil
		}})
}

// Engines returns the names of the compute engines in this build, best first.
func Engines() []string {
	var names []string
	for _, b := range builtins() {
		names = append(names, b.name)
	}
	return names
}

// DTypes returns the values of Options.DType beside auto; an engine may lack some.
func DTypes() []string { return []string{f32, bf16} }

// Check returns an error if this build lacks what the options ask for, before anything is loaded.
func (o Options) Check() error {
	_, _, err := o.candidates()
	return err
}

// candidates returns the engines that fit the options, best first, and the dtype to open them with.
// auto does not choose bfloat16: all workers of a job must compute the same bits, which may not
// depend on the strengths of the first machine, and rounding to 8 bits is the user's decision.
func (o Options) candidates() (_ []builtin, dtype string, _ error) {
	dtype = o.DType
	if dtype == "" || dtype == auto {
		dtype = f32
	}
	if !slices.Contains(DTypes(), dtype) {
		return nil, "", fmt.Errorf("dtype %q, want %s or one of %s", o.DType, auto, strings.Join(DTypes(), ", "))
	}
	if o.Threads < 0 {
		return nil, "", fmt.Errorf("%d threads, want 0 (one per CPU) or more", o.Threads)
	}
	if err := o.Device.Check(); err != nil {
		return nil, "", fmt.Errorf("%s: %w", o.Device, err)
	}

	// The engines of that name that have the dtype and pack as asked.
	var found []builtin
	named := o.Engine == "" || o.Engine == auto
	for _, b := range builtins() {
		if o.Engine != "" && o.Engine != auto && b.name != o.Engine {
			continue
		}
		named = true
		if slices.Contains(b.dtypes, dtype) && (b.packs || !o.DisablePacking) {
			found = append(found, b)
		}
	}

	// If there is none: what the build has.
	if !named {
		return nil, "", fmt.Errorf("engine %q: this build has %s%s",
			o.Engine, strings.Join(Engines(), ", "), withoutONEDNN)
	}
	if len(found) == 0 && o.DisablePacking {
		return nil, "", fmt.Errorf(
			"without packing: only engine onednn packs weights, and this build has %s%s; the engine asked for is %q",
			strings.Join(Engines(), ", "), withoutONEDNN, o.Engine)
	}
	if len(found) == 0 {
		var have []string
		for _, b := range builtins() {
			have = append(have, fmt.Sprintf("%s (%s)", b.name, strings.Join(b.dtypes, ", ")))
		}
		name := o.Engine
		if name == "" {
			name = auto
		}
		return nil, "", fmt.Errorf("dtype %s with engine %s: this build has %s%s",
			dtype, name, strings.Join(have, ", "), withoutONEDNN)
	}
	return found, dtype, nil
}

// newEngine opens the first candidate that works here. why is the reason for the choice, in
// parentheses, or "" if the options name the engine.
func newEngine(o Options) (_ engine.Engine, why string, _ error) {
	found, dtype, err := o.candidates()
	if err != nil {
		return nil, "", err
	}
	reason := "the fastest of this build" + withoutONEDNN
	var failed error
	for _, b := range found {
		e, err := b.open(o, dtype)
		if err != nil {
			failed = fmt.Errorf("engine %s: %w", b.name, err)
			reason = fmt.Sprintf("since %v", failed)
			continue
		}
		if o.Engine == "" || o.Engine == auto {
			why = " (" + auto + ": " + reason + ")"
		}
		return e, why, nil
	}
	return nil, "", failed
}
