package model

import (
	"slices"
	"strings"
	"testing"
)

func TestEngines(t *testing.T) {
	if e := Engines(); e[len(e)-1] != "portable" {
		t.Errorf("engines %v, want portable last", e)
	}
	for _, name := range Engines() {
		b, err := Open(goldenDir, Options{Engine: name, Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(b.EngineName(), name) || strings.Contains(b.EngineName(), "auto") ||
			!strings.HasPrefix(b.Numerics(), name) {
			t.Errorf("engine %s: name %q, numerics %q", name, b.EngineName(), b.Numerics())
		}
		b.Close()
	}
	b := open(t, goldenDir, 1)
	if want := Engines()[0]; !strings.HasPrefix(b.EngineName(), want) ||
		!strings.Contains(b.EngineName(), "(auto: the fastest of this build") {
		t.Errorf("auto opened %q, want %s and why", b.EngineName(), want)
	}
}

// TestNumerics: Numerics depends on the dtype, not on the number of threads.
func TestNumerics(t *testing.T) {
	first := open(t, goldenDir, 1).Numerics()
	if other := open(t, goldenDir, 2).Numerics(); other != first {
		t.Errorf("numerics %q with 1 thread, %q with 2", first, other)
	}
	if !slices.Contains(Engines(), "onednn") {
		return
	}
	half, err := Open(goldenDir, Options{DType: "bf16"})
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	if half.Numerics() == first || !strings.Contains(half.Numerics(), "bf16") {
		t.Errorf("numerics %q in bf16, %q in f32", half.Numerics(), first)
	}
}

func TestEngineErrors(t *testing.T) {
	for _, c := range []struct {
		opt  Options
		want string
	}{
		{Options{Engine: "abacus"}, `engine "abacus": this build has `},
		{Options{DType: "f8"}, `dtype "f8", want auto or one of f32, bf16`},
		{Options{Engine: "portable", DType: "bf16"}, "dtype bf16 with engine portable: this build has "},
		{Options{Threads: -1}, "-1 threads"},
	} {
		if _, err := Open(goldenDir, c.opt); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.opt, err, c.want)
		}
		if err := c.opt.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: Check: %v, want %q", c.opt, err, c.want)
		}
	}
}
