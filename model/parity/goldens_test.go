package parity_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/checkpoint"
)

// The bounds within which a float32 engine agrees with float32 PyTorch.
const (
	logitBound      = 1e-4 // absolute, each logit
	lossBound       = 1e-5 // relative
	gradientBound   = 1e-4 // norm of the difference over the norm
	trajectoryBound = 1e-3 // relative, each step's loss
)

// tiny are the models of testdata.
var tiny = []string{"v10", "v11"}

// readJSON decodes a file of testdata into v.
func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", path))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("parse %s: %v", path, err)
	}
}

// tensors opens a safetensors file of testdata; get returns one of its tensors in float32 and fails
// the test unless it has the shape.
func tensors(t *testing.T, path string) (get func(name string, shape ...int) []float32) {
	t.Helper()
	f, err := checkpoint.Open(filepath.Join("testdata", path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return func(name string, shape ...int) []float32 {
		t.Helper()
		tensor, err := f.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		values, err := tensor.Float32()
		if err != nil {
			t.Fatal(err)
		}
		size := 1
		for i, n := range shape {
			size *= n
			if len(tensor.Shape) != len(shape) || tensor.Shape[i] != n {
				t.Fatalf("%s: tensor %s has shape %v, want %v", path, name, tensor.Shape, shape)
			}
		}
		if len(values) != size {
			t.Fatalf("%s: tensor %s has %d values, want %d", path, name, len(values), size)
		}
		return values
	}
}

// backbone opens a model of testdata.
func backbone(t *testing.T, name string) *model.Backbone {
	t.Helper()
	b, err := model.Open(filepath.Join("testdata", name), model.Options{Device: model.CPU})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// farthest is the largest absolute difference. Slices of different lengths, or a NaN, are
// infinitely far apart.
func farthest(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var worst float64
	for i := range got {
		d := math.Abs(float64(got[i]) - float64(want[i]))
		if math.IsNaN(d) {
			return math.Inf(1)
		}
		worst = max(worst, d)
	}
	return worst
}

// relativeNorm is |got-want| / |want| in the Euclidean norm.
func relativeNorm(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var diff, norm float64
	for i := range got {
		d := float64(got[i]) - float64(want[i])
		diff += d * d
		norm += float64(want[i]) * float64(want[i])
	}
	return orInf(math.Sqrt(diff / norm))
}

// relative is |got-want| / |want|.
func relative(got, want float64) float64 { return orInf(math.Abs(got-want) / math.Abs(want)) }

func orInf(x float64) float64 {
	if math.IsNaN(x) {
		return math.Inf(1)
	}
	return x
}

// within fails the test if a measured difference exceeds its bound, and logs the difference
// otherwise.
func within(t *testing.T, what string, measured, bound float64) {
	t.Helper()
	if measured > bound {
		t.Errorf("%s differs by %.2g, bound %.0g", what, measured, bound)
		return
	}
	t.Logf("%s differs by %.2g, bound %.0g", what, measured, bound)
}
