package enginetest

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/portable"
)

// numericsRows is the number of rows of the ops by which the checks of Numerics compare bits.
const numericsRows = 33

// numerics checks that Numerics names the engine and the dtype, and that neither threads nor ops
// change it.
func (s *suite) numerics(t *testing.T) {
	one, many := s.engine(t, 1), s.engine(t, 3)
	first, after := runRowOps(t, one)
	_, afterMany := runRowOps(t, many)
	name, dtype := cutNumerics(after)
	if short, _, _ := strings.Cut(one.Name(), "/"); name == "" || name != short {
		t.Errorf("numerics %q of engine %q, want the engine's name before the first slash", after, one.Name())
	}
	if !slices.Contains([]string{"f32", "f64", "bf16"}, dtype) {
		t.Errorf("numerics %q, want a dtype, f32, f64 or bf16, behind the engine's name", after)
	}
	if afterMany != after {
		t.Errorf("numerics %q with 3 threads, %q with 1", afterMany, after)
	}
	if again := one.Numerics(); again != after {
		t.Errorf("numerics %q in a second call, %q in the first", again, after)
	}
	again, _ := runRowOps(t, one)
	for i := range first {
		sameBits(t, "a result of equal numerics", again[i], first[i])
	}
	if got := one.Numerics(); got != after {
		t.Errorf("numerics %q after the same ops on the same weights again, %q before", got, after)
	}
}

// Wrapper checks the Numerics of the engine that wrap returns: it equals the inner engine's exactly
// if the results of ops are equal, and has the inner engine's name and dtype in any case. Wrapper
// closes the engines.
func Wrapper(t *testing.T, wrap func(engine.Trainer) engine.Engine) {
	inner, wrapped := portable.New[float32](1), wrap(portable.New[float32](1))
	defer inner.Close()
	defer wrapped.Close()
	want, innerNumerics := runRowOps(t, inner)
	got, numerics := runRowOps(t, wrapped)
	same := slices.EqualFunc(got, want, func(a, b []float64) bool { return slices.Equal(a, b) })
	if same != (numerics == innerNumerics) {
		t.Errorf("equal bits: %v, but numerics %q around %q", same, numerics, innerNumerics)
	}
	name, dtype := cutNumerics(numerics)
	if innerName, innerDType := cutNumerics(innerNumerics); name != innerName || dtype != innerDType {
		t.Errorf("numerics %q around %q, want its name and dtype", numerics, innerNumerics)
	}
}

// runRowOps runs every row op on fixed operands and returns the results and the engine's Numerics
// after that.
func runRowOps(t *testing.T, e engine.Engine) (results [][]float64, numerics string) {
	t.Helper()
	const seed = 4
	for _, o := range rowOps(rand.New(rand.NewPCG(seed, 0))) {
		in, ids := o.operands(rand.New(rand.NewPCG(seed, 1)), numericsRows)
		results = append(results, o.run(t, e, place{}, seed, in, ids, 0, numericsRows)...)
	}
	return results, e.Numerics()
}

// cutNumerics returns the first two parts of an engine's Numerics.
func cutNumerics(s string) (name, dtype string) {
	name, rest, _ := strings.Cut(s, "/")
	dtype, _, _ = strings.Cut(rest, "/")
	return name, dtype
}
