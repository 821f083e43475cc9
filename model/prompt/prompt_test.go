package prompt

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"gonum.org/v1/gonum/blas"

	"github.com/dptune/dpt/model/internal/gauss"
)

func dpt(e, b, c int) Config { return Config{Method: "dpt", Dim: e, Bottleneck: b, Length: c} }

// sizes are shapes at which layouts and gorgonia's special cases differ.
var sizes = []Config{
	dpt(1, 1, 1), dpt(5, 1, 1), dpt(1, 1, 4), dpt(1, 3, 1), dpt(4, 1, 3), dpt(3, 2, 5), dpt(7, 9, 2), dpt(3, 3, 3),
	dpt(64, 10, 20), dpt(130, 10, 100),
}

// bumpy is a loss with a curved surface: the sum of w·sin(x) + x²/2 over the c×e
// prompt, with another weight w for each number.
func bumpy(x []float32) (float64, []float32, error) {
	loss, grad := 0.0, make([]float32, len(x))
	for i, v := range x {
		w := 1 + float64(i%11)/3
		loss += w*math.Sin(float64(v)) + float64(v)*float64(v)/2
		grad[i] = float32(w*math.Cos(float64(v)) + float64(v))
	}
	return loss, grad, nil
}

// initial is a Gaussian start.
func initial(cfg Config, seed uint64, std float64) []float32 {
	params, err := cfg.Init(Start{Seed: seed, Std: std})
	if err != nil {
		panic(err)
	}
	return params
}

func newGraph(t testing.TB, cfg Config) *Graph {
	t.Helper()
	g, err := NewGraph(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestEmbeddings checks the layout and the values: (A·B)^T, one row per token.
func TestEmbeddings(t *testing.T) {
	for _, cfg := range sizes {
		params := initial(cfg, 1, 1)
		got, err := newGraph(t, cfg).Embeddings(params)
		if err != nil {
			t.Fatalf("%+v: %v", cfg, err)
		}
		a, b := params[:cfg.Dim*cfg.Bottleneck], params[cfg.Dim*cfg.Bottleneck:]
		for i := range cfg.Length {
			for j := range cfg.Dim {
				var want float64
				for k := range cfg.Bottleneck {
					want += float64(a[j*cfg.Bottleneck+k]) * float64(b[k*cfg.Length+i])
				}
				if got[i*cfg.Dim+j] != float32(want) {
					t.Fatalf("%+v: token %d, dimension %d is %v, want %v", cfg, i, j, got[i*cfg.Dim+j], float32(want))
				}
			}
		}
	}
}

// TestGradientByHand checks dA = dP·B^T and dB = A^T·dP, with dP (e×c) the
// transpose of what the loss returns, and that the loss sees the embeddings.
func TestGradientByHand(t *testing.T) {
	for _, cfg := range sizes {
		e, b, c := cfg.Dim, cfg.Bottleneck, cfg.Length
		g := newGraph(t, cfg)
		params := initial(cfg, 2, 0.5)
		rows, err := g.Embeddings(params)
		if err != nil {
			t.Fatal(err)
		}
		var seen, dP []float32
		value, grad, err := g.Gradient(params, func(x []float32) (float64, []float32, error) {
			loss, grad, err := bumpy(x)
			seen, dP = slices.Clone(x), grad
			return loss, grad, err
		})
		if err != nil {
			t.Fatalf("%+v: %v", cfg, err)
		}
		if want, _, _ := bumpy(rows); value != want || !slices.Equal(seen, rows) {
			t.Errorf("%+v: loss %v, want %v on the embeddings", cfg, value, want)
		}
		A, B := params[:e*b], params[e*b:]
		for i := range grad {
			var want float64
			if i < e*b {
				for k := range c {
					want += float64(dP[k*e+i/b]) * float64(B[i%b*c+k])
				}
			} else {
				for k := range e {
					want += float64(A[k*b+(i-e*b)/c]) * float64(dP[(i-e*b)%c*e+k])
				}
			}
			if grad[i] != float32(want) {
				t.Fatalf("%+v: gradient of parameter %d is %v, want %v", cfg, i, grad[i], float32(want))
			}
		}
	}
}

// TestGradientByDifferences checks the gradient against central differences of
// the loss in a direction per matrix.
func TestGradientByDifferences(t *testing.T) {
	for _, cfg := range []Config{dpt(3, 2, 5), dpt(16, 4, 6)} {
		g := newGraph(t, cfg)
		params := initial(cfg, 3, 0.7)
		_, grad, err := g.Gradient(params, bumpy)
		if err != nil {
			t.Fatal(err)
		}
		for _, tensor := range cfg.Tensors() {
			dir := make([]float32, len(params))
			gauss.New(4, tensor.Name).Fill(dir[tensor.Offset:tensor.Offset+tensor.Size()], 1)
			const h = 1e-3
			at := func(h float32) float64 {
				x := slices.Clone(params)
				for i := range x {
					x[i] += h * dir[i]
				}
				v, _, err := g.Gradient(x, bumpy)
				if err != nil {
					t.Fatal(err)
				}
				return v
			}
			got := (at(h) - at(-h)) / (2 * h)
			var want float64
			for i := range dir {
				want += float64(dir[i]) * float64(grad[i])
			}
			if math.Abs(got-want) > 1e-3*math.Abs(want) {
				t.Errorf("%+v: %s: difference %v, gradient %v", cfg, tensor.Name, got, want)
			}
		}
	}
}

// TestSameBits runs the same gradient in fresh graphs, after other work, in
// parallel and with other numbers of threads.
func TestSameBits(t *testing.T) {
	cfg := dpt(130, 10, 100)
	params := initial(cfg, 5, 0.1)
	_, want, err := newGraph(t, cfg).Gradient(params, bumpy)
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, procs := range []int{1, 3, 8} {
		runtime.GOMAXPROCS(procs)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				g, err := NewGraph(cfg)
				if err != nil {
					t.Error(err)
					return
				}
				for range 3 {
					if _, _, err := g.Gradient(initial(cfg, 9, 2), bumpy); err != nil {
						t.Error(err)
					}
					_, got, err := g.Gradient(params, bumpy)
					if err != nil || !slices.Equal(got, want) {
						t.Errorf("the gradient differs (%v)", err)
					}
				}
			})
		}
		wg.Wait()
	}
}

var errBoom = errors.New("boom")

func TestGradientErrors(t *testing.T) {
	cfg := dpt(3, 2, 4)
	g := newGraph(t, cfg)
	params := initial(cfg, 1, 1)
	for _, c := range []struct {
		name string
		loss Loss
		want string
	}{
		{"error", func([]float32) (float64, []float32, error) {
			return 0, nil, fmt.Errorf("wrapped: %w", errBoom)
		}, "prompt: compute the gradient: wrapped: boom"},
		{"panic", func([]float32) (float64, []float32, error) { panic("ouch") }, "the loss function panicked: ouch"},
		{"short", func([]float32) (float64, []float32, error) {
			return 0, make([]float32, 11), nil
		}, "gradient of 11 numbers from the loss function, want 12 for 4 virtual tokens of 3"},
	} {
		_, grad, err := g.Gradient(params, c.loss)
		if err == nil || !strings.Contains(err.Error(), c.want) || grad != nil {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
		if c.name == "error" && !errors.Is(err, errBoom) {
			t.Errorf("%s: %v does not wrap the loss's error", c.name, err)
		}
		// The graph still works.
		if _, _, err := g.Gradient(params, bumpy); err != nil {
			t.Errorf("after %s: %v", c.name, err)
		}
	}
	if _, _, err := g.Gradient(params[1:], bumpy); err == nil ||
		!strings.Contains(err.Error(), "13 parameters, want 14") {
		t.Errorf("error %v", err)
	}
	if _, err := g.Embeddings(nil); err == nil || !strings.Contains(err.Error(), "0 parameters, want 14") {
		t.Errorf("error %v", err)
	}
}

// TestNoGrowth runs thousands of steps: neither the heap nor the number of
// goroutines may grow with them.
func TestNoGrowth(t *testing.T) {
	cfg := dpt(32, 4, 8)
	g := newGraph(t, cfg)
	params := initial(cfg, 1, 1)
	grad := make([]float32, cfg.Dim*cfg.Length)
	run := func(n int) (heap uint64, objects uint64) {
		for range n {
			if _, _, err := g.Gradient(params, func([]float32) (float64, []float32, error) {
				return 1, grad, nil
			}); err != nil {
				t.Fatal(err)
			}
			if _, err := g.Embeddings(params); err != nil {
				t.Fatal(err)
			}
		}
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc, m.HeapObjects
	}
	heap, objects := run(200)
	before := runtime.NumGoroutine()
	heap2, objects2 := run(4000)
	if heap2 > heap+64<<10 || objects2 > objects+400 {
		t.Errorf("heap grew from %d to %d bytes, %d to %d objects, in 4000 steps", heap, heap2, objects, objects2)
	}
	if after := runtime.NumGoroutine(); after > before+2 {
		t.Errorf("goroutines grew from %d to %d", before, after)
	}
}

func TestConfig(t *testing.T) {
	cfg := dpt(1024, 10, 100)
	if cfg.Size() != 11_240 {
		t.Errorf("T5-Large's prompt has %d numbers, want 11240", cfg.Size())
	}
	got := fmt.Sprint(cfg.Tensors())
	if want := "[{A [1024 10] 0} {B [10 100] 10240}]"; got != want {
		t.Errorf("tensors %s, want %s", got, want)
	}
	for want, bad := range map[string]Config{
		`unknown method "lora", want one of dpt`: {Method: "lora", Dim: 1, Length: 1, Bottleneck: 1},
		"dimension is 0":                         dpt(0, 1, 1),
		"bottleneck is -1":                       dpt(1, -1, 1),
		"length is 0":                            dpt(1, 1, 0),
		"has more than":                          dpt(1<<20, 1<<20, 1),
	} {
		if _, err := NewGraph(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// TestInit pins the start of a seed; every trained prompt depends on it.
func TestInit(t *testing.T) {
	cfg := dpt(3, 2, 4)
	got := initial(cfg, 42, 0.02)
	want := []float32{
		0.01428827, 0.013426814, -0.023700915, -0.018555649, 0.0012596999, 0.0058108247, 0.018135061, 0.013495016,
		0.009749654, 0.042621356, -0.024549566, -0.0012280685, 0.0155553445, -0.01498858,
	}
	if !slices.Equal(got, want) {
		t.Errorf("Init(42, 0.02) = %#v, want %#v", got, want)
	}
	a := initial(cfg, 42, 1)
	if wider := initial(dpt(3, 2, 9), 42, 1); !slices.Equal(wider[:6], a[:6]) {
		t.Error("A depends on the size of B")
	}
	if slices.Equal(a[:6], a[6:12]) {
		t.Error("A and B start alike")
	}
}

// TestSgemm compares every form of the product that gorgonia may call with the definition.
func TestSgemm(t *testing.T) {
	const m, n, k = 3, 4, 5
	a, b := make([]float32, 64), make([]float32, 64)
	gauss.New(1, "a").Fill(a, 1)
	gauss.New(1, "b").Fill(b, 1)
	for _, tA := range []blas.Transpose{blas.NoTrans, blas.Trans} {
		for _, tB := range []blas.Transpose{blas.NoTrans, blas.Trans} {
			for _, beta := range []float32{0, 0.5} {
				const lda, ldb, ldc = 6, 7, 5
				c := make([]float32, m*ldc)
				for i := range c {
					c[i] = float32(i)
				}
				if beta == 0 {
					c[0] = float32(math.NaN())
				}
				old := slices.Clone(c)
				exactBLAS{}.Sgemm(tA, tB, m, n, k, 2, a, lda, b, ldb, beta, c, ldc)
				for i := range m {
					for j := range ldc {
						if j >= n {
							if c[i*ldc+j] != old[i*ldc+j] {
								t.Fatal("wrote beyond the matrix")
							}
							continue
						}
						var sum float64
						for l := range k {
							x, y := a[i*lda+l], b[l*ldb+j]
							if tA == blas.Trans {
								x = a[l*lda+i]
							}
							if tB == blas.Trans {
								y = b[j*ldb+l]
							}
							sum += float64(x) * float64(y)
						}
						want := 2 * sum
						if beta != 0 {
							want += float64(beta) * float64(old[i*ldc+j])
						}
						if d := math.Abs(float64(c[i*ldc+j]) - want); !(d <= 1e-6*(1+math.Abs(want))) {
							t.Fatalf("%c%c beta %v: [%d %d] = %v, want %v", tA, tB, beta, i, j, c[i*ldc+j], want)
						}
					}
				}
			}
		}
	}
}

func BenchmarkGradient(b *testing.B) {
	for _, cfg := range []Config{dpt(64, 10, 20), dpt(1024, 10, 100)} {
		b.Run(fmt.Sprintf("%dx%dx%d", cfg.Dim, cfg.Bottleneck, cfg.Length), func(b *testing.B) {
			g := newGraph(b, cfg)
			params := initial(cfg, 1, 1)
			grad := make([]float32, cfg.Dim*cfg.Length)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := g.Gradient(params, func([]float32) (float64, []float32, error) {
					return 1, grad, nil
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
