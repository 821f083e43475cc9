package optim

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

type goldens struct {
	Cases []struct {
		Name          string
		LR, Eps       float64
		Beta1, Beta2  float64
		WeightDecay   float64 `json:"weight_decay"`
		MaxNorm       float64 `json:"max_norm"`
		Warmup, Total int64
		Init          []float32
		Steps         []struct {
			Grad, Params, M, V []float32
			Norm               *float64
			Factor             float64
		}
	}
	Schedules []struct {
		Warmup, Total int64
		Factors       []float64
	}
}

func readGoldens(t *testing.T) goldens {
	t.Helper()
	data, err := os.ReadFile("testdata/goldens.json")
	if err != nil {
		t.Fatal(err)
	}
	var g goldens
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// TestAdamWGoldens follows PyTorch over whole training runs: parameters, both
// moments and the norm, within 1e-6.
func TestAdamWGoldens(t *testing.T) {
	for _, c := range readGoldens(t).Cases {
		t.Run(c.Name, func(t *testing.T) {
			a := AdamW{LR: c.LR, Beta1: c.Beta1, Beta2: c.Beta2, Eps: c.Eps, WeightDecay: c.WeightDecay}
			sched := Linear{Warmup: c.Warmup, Total: c.Total}
			s := NewState(slices.Clone(c.Init))
			if len(c.Steps) < 20 {
				t.Fatalf("%d steps, want 20 or more", len(c.Steps))
			}
			worst := 0.0
			for i, step := range c.Steps {
				g := slices.Clone(step.Grad)
				norm := ClipGlobalNorm(g, c.MaxNorm)
				if step.Norm != nil && relative(norm, *step.Norm) > 1e-6 {
					t.Fatalf("step %d: norm %v, want %v", i, norm, *step.Norm)
				}
				f := sched.Factor(int64(i))
				if relative(f, step.Factor) > 1e-12 {
					t.Fatalf("step %d: factor %v, want %v", i, f, step.Factor)
				}
				if err := a.Update(s, g, f); err != nil {
					t.Fatal(err)
				}
				for _, p := range []struct {
					name      string
					got, want []float32
				}{{"params", s.Params, step.Params}, {"m", s.M, step.M}, {"v", s.V, step.V}} {
					// Relative to a number's own size, or to the usual size where
					// steps of that size have cancelled.
					usual := GlobalNorm(p.want) / math.Sqrt(float64(len(p.want)))
					for j := range p.want {
						r := math.Abs(float64(p.got[j])-float64(p.want[j])) / max(math.Abs(float64(p.want[j])), usual)
						worst = max(worst, r)
						if r > 1e-6 {
							t.Fatalf("step %d: %s[%d] = %v, want %v", i, p.name, j, p.got[j], p.want[j])
						}
					}
				}
			}
			if s.Step != int64(len(c.Steps)) {
				t.Errorf("step %d, want %d", s.Step, len(c.Steps))
			}
			t.Logf("largest relative difference %.2g", worst)
		})
	}
}

func relative(a, b float64) float64 {
	if a == b {
		return 0
	}
	return math.Abs(a-b) / math.Abs(b)
}

func TestLinearGoldens(t *testing.T) {
	for _, c := range readGoldens(t).Schedules {
		l := Linear{Warmup: c.Warmup, Total: c.Total}
		for step, want := range c.Factors {
			if got := l.Factor(int64(step)); got != want {
				t.Errorf("%+v: factor at step %d is %v, want %v", l, step, got, want)
			}
		}
	}
}

func TestWarmupSteps(t *testing.T) {
	for _, c := range []struct {
		w     float64
		total int64
		want  int64
	}{
		{0.1, 1000, 100}, {0.1, 19, 1}, {0, 50, 0}, {1, 50, 50}, {2, 50, 2}, {500.9, 50, 500}, {0.3, 10, 3},
		{0.7, 10, 7},
	} {
		if got := WarmupSteps(c.w, c.total); got != c.want {
			t.Errorf("WarmupSteps(%v, %d) = %d, want %d", c.w, c.total, got, c.want)
		}
	}
}

func TestClipGlobalNorm(t *testing.T) {
	g := []float32{3, -4}
	if n := ClipGlobalNorm(g, 1); n != 5 || math.Abs(GlobalNorm(g)-1) > 1e-6 || g[1] >= 0 {
		t.Errorf("norm %v, clipped %v", n, g)
	}
	g = []float32{0.3, -0.4}
	if ClipGlobalNorm(g, 1); !slices.Equal(g, []float32{0.3, -0.4}) {
		t.Errorf("clipped a short gradient to %v", g)
	}
	g = []float32{3, -4}
	if n := ClipGlobalNorm(g, 0); n != 5 || !slices.Equal(g, []float32{3, -4}) {
		t.Errorf("max 0: norm %v, %v", n, g)
	}
	nan := float32(math.NaN())
	g = []float32{1, nan}
	if n := ClipGlobalNorm(g, 1); !math.IsNaN(n) || g[0] != 1 {
		t.Errorf("NaN: norm %v, %v", n, g)
	}
	// Norms of float32's largest and smallest numbers neither overflow nor vanish.
	if n := GlobalNorm([]float32{math.MaxFloat32, math.MaxFloat32}); math.IsInf(n, 0) {
		t.Errorf("norm %v", n)
	}
	if n := GlobalNorm([]float32{1e-45}); n == 0 {
		t.Errorf("norm %v", n)
	}
}

func TestUpdateRefuses(t *testing.T) {
	inf := float32(math.Inf(1))
	good := NewAdamW(0.3, 1e-5)
	for _, c := range []struct {
		name   string
		a      AdamW
		s      *State
		grad   []float32
		factor float64
		want   string
	}{
		{"short gradient", good, NewState([]float32{1, 2}), []float32{1}, 1, "gradient of 1 numbers, want 2"},
		{"infinite", good, NewState([]float32{1, 2}), []float32{0, inf}, 1, "gradient of parameter 1 is +Inf"},
		{"NaN", good, NewState([]float32{1}), []float32{inf - inf}, 1, "gradient of parameter 0 is NaN"},
		{"square overflows", good, NewState([]float32{1}), []float32{2e18}, 1, "magnitude at most 1e+18"},
		{"moments missing", good, &State{Params: []float32{1}}, []float32{1}, 1, "with 0 first and 0 second moments"},
		{"negative step", good, &State{Step: -1}, nil, 1, "state at step -1"},
		{"factor", good, NewState([]float32{1}), []float32{1}, math.NaN(), "factor is NaN"},
		{"beta", AdamW{LR: 1, Beta1: 1, Beta2: 0.9}, NewState([]float32{1}), []float32{1}, 1,
			"beta1 is 1, want a number in [0, 1)"},
		{"rate", AdamW{LR: -1}, NewState([]float32{1}), []float32{1}, 1, "learning rate is -1"},
		{"diverged", AdamW{LR: 1e39}, NewState([]float32{1}), []float32{1}, 1, "training diverged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := c.s.Clone()
			err := c.a.Update(c.s, c.grad, c.factor)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
			if c.name != "diverged" && (c.s.Step != before.Step || !slices.Equal(c.s.Params, before.Params)) {
				t.Error("the state changed")
			}
		})
	}
}

// TestUpdateBits pins the bits of a training run, which must depend neither on
// the architecture nor on the Go version.
func TestUpdateBits(t *testing.T) {
	s := NewState([]float32{0.1, -0.2, 0.3, 0, 5})
	a := NewAdamW(0.3, 1e-5)
	for i := range 1000 {
		g := make([]float32, len(s.Params))
		for j := range g {
			g[j] = s.Params[j]/3 + float32(i%7)/11 - float32(j)/13
		}
		ClipGlobalNorm(g, 1)
		if err := a.Update(s, g, Linear{Warmup: 100, Total: 1000}.Factor(int64(i))); err != nil {
			t.Fatal(err)
		}
	}
	d := s.Digest()
	const want = "83157bc658538990179b82a1c927754609e8b1e0a4050afc6de9d8f7feaad708"
	if got := hex.EncodeToString(d[:]); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
}

func TestStateEncoding(t *testing.T) {
	s := &State{Step: 7, Params: []float32{1, -2}, M: []float32{0.5, -0.25}, V: []float32{0, 3}}
	data, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	const want = "4450545354415445" + "01000000" + "0700000000000000" + "0200000000000000" +
		"0000803f000000c0" + "0000003f000080be" + "0000000000004040"
	if got := hex.EncodeToString(data); got != want {
		t.Errorf("encoding %s, want %s", got, want)
	}
	var back State
	if err := back.UnmarshalBinary(data); err != nil {
		t.Fatal(err)
	}
	if back.Digest() != s.Digest() {
		t.Error("the decoded state differs")
	}
	if c := s.Clone(); c.Digest() != s.Digest() || &c.Params[0] == &s.Params[0] {
		t.Error("Clone is not a deep copy")
	}

	change := func(at int, b ...byte) []byte {
		d := slices.Clone(data)
		copy(d[at:], b)
		return d
	}
	for want, bad := range map[string][]byte{
		"0 bytes, want at least the header's 28":  nil,
		`starts with "XPTSTATE", want "DPTSTATE"`: change(0, 'X'),
		"version 2, want 1":                       change(8, 2),
		"state at step -1": change(12, 255, 255, 255, 255, 255, 255, 255,
			255),
		"23 bytes after the header, want 12 for each of 2 parameters": data[:len(data)-1],
		"25 bytes after the header, want 12 for each of 2 parameters": append(slices.Clone(data), 0),
		"want 12 for each of 1537228672809129303 parameters": change(20, 0x57, 0x55, 0x55, 0x55, 0x55, 0x55,
			0x55, 0x15),
		"parameter 0 is +Inf, want a finite number": change(28, 0, 0, 0x80, 0x7f),
		"second moment 1 is -3, want 0 or more":     change(51, 0xc0),
	} {
		back := s.Clone()
		if err := back.UnmarshalBinary(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		if back.Digest() != s.Digest() {
			t.Error("a failed decoding changed the state")
		}
	}
	if _, err := (&State{Params: []float32{1}}).MarshalBinary(); err == nil {
		t.Error("encoded a state without moments")
	}
}

func FuzzState(f *testing.F) {
	for _, s := range []*State{
		NewState(nil), NewState([]float32{1, 2}), {Step: 3, Params: []float32{1}, M: []float32{2}, V: []float32{3}},
	} {
		data, err := s.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var s State
		if s.UnmarshalBinary(data) != nil {
			return
		}
		again, err := s.MarshalBinary()
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x decodes and encodes to %x (%v)", data, again, err)
		}
	})
}

func BenchmarkUpdate(b *testing.B) {
	s := NewState(make([]float32, 11_240)) // T5-Large's A and B
	g := make([]float32, len(s.Params))
	for i := range g {
		g[i] = float32(i%13) - 6
	}
	a := NewAdamW(0.3, 1e-5)
	b.SetBytes(int64(4 * len(g)))
	for b.Loop() {
		if err := a.Update(s, g, 1); err != nil {
			b.Fatal(err)
		}
	}
}
