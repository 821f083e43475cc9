package prompt

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/model/internal/gauss"
)

// others are configurations of the methods other than dpt, at shapes at which
// layouts and gorgonia's special cases differ.
var others = []Config{
	{Method: "pt", Dim: 1, Length: 1}, {Method: "pt", Dim: 5, Length: 1}, {Method: "pt", Dim: 1, Length: 4},
	{Method: "pt", Dim: 7, Length: 3},
	{Method: "respt", Dim: 2, Length: 1, Bottleneck: 1}, {Method: "respt", Dim: 5, Length: 3, Bottleneck: 2},
	{Method: "respt", Dim: 3, Length: 6, Bottleneck: 9},
	{Method: "respt", Dim: 6, Length: 1, Bottleneck: 4}, {Method: "respt", Dim: 64, Length: 10, Bottleneck: 30},
	{Method: "svd", Dim: 1, Length: 1, Bottleneck: 1}, {Method: "svd", Dim: 5, Length: 3, Bottleneck: 3},
	{Method: "svd", Dim: 3, Length: 6, Bottleneck: 3},
	{Method: "svd", Dim: 6, Length: 4, Bottleneck: 2}, {Method: "svd", Dim: 4, Length: 4, Bottleneck: 1},
}

// named returns the parts of params by name, in float64.
func named(cfg Config, params []float32) map[string][]float64 {
	out := map[string][]float64{}
	for _, t := range cfg.Tensors() {
		for _, v := range params[t.Offset : t.Offset+t.Size()] {
			out[t.Name] = append(out[t.Name], float64(v))
		}
	}
	return out
}

// byHand computes number j of virtual token i from the definitions in the papers.
func byHand(cfg Config, p map[string][]float64, i, j int) float64 {
	e, c, b := cfg.Dim, cfg.Length, cfg.Bottleneck
	switch cfg.Method {
	case "pt":
		return p["prompt"][i*e+j]
	case "svd":
		var sum float64
		for k := range b {
			sum += p["U"][j*b+k] * max(0, p["Sigma"][k]) * p["V"][k*c+i]
		}
		return sum
	}
	x := p["embeddings"][i*e : (i+1)*e]
	hidden := make([]float64, b)
	for k := range b {
		hidden[k] = p["mlp.down.bias"][k]
		for l := range e {
			hidden[k] += p["mlp.down.weight"][k*e+l] * x[l]
		}
		hidden[k] = max(0, hidden[k])
	}
	y := make([]float64, e)
	var mean, variance float64
	for l := range e {
		y[l] = p["mlp.up.bias"][l]
		for k := range b {
			y[l] += p["mlp.up.weight"][l*b+k] * hidden[k]
		}
		mean += y[l] / float64(e)
	}
	for l := range e {
		variance += (y[l] - mean) * (y[l] - mean) / float64(e)
	}
	return x[j] + (y[j]-mean)/math.Sqrt(variance+1e-5)*p["mlp.norm.weight"][j] + p["mlp.norm.bias"][j]
}

// scrambled are parameters of which none is 0 or 1 and about half of Σ is negative.
func scrambled(cfg Config) []float32 {
	params := initial(cfg, 3, 0.7)
	noise := make([]float32, len(params))
	gauss.New(11, "noise").Fill(noise, 0.6)
	for i := range params {
		params[i] += noise[i]
	}
	if cfg.Method == "svd" {
		sigma := cfg.Tensors()[1]
		for i := range sigma.Size() {
			if i%2 == 1 {
				params[sigma.Offset+i] = -0.4 - float32(i)/10
			} else {
				params[sigma.Offset+i] = 0.5 + float32(i)/10
			}
		}
	}
	return params
}

func TestMethodsEmbeddings(t *testing.T) {
	for _, cfg := range others {
		params := scrambled(cfg)
		got, err := newGraph(t, cfg).Embeddings(params)
		if err != nil {
			t.Fatalf("%+v: %v", cfg, err)
		}
		p := named(cfg, params)
		for i := range cfg.Length {
			for j := range cfg.Dim {
				want := byHand(cfg, p, i, j)
				if d := math.Abs(float64(got[i*cfg.Dim+j]) - want); !(d <= 2e-6*(1+math.Abs(want))) {
					t.Fatalf("%+v: token %d, dimension %d is %v, want %v", cfg, i, j, got[i*cfg.Dim+j], want)
				}
			}
		}
	}
}

// TestMethodsGradientByDifferences checks every tensor's gradient against central
// differences of the same function in float64, in which the step can be small.
func TestMethodsGradientByDifferences(t *testing.T) {
	for _, cfg := range others {
		params := scrambled(cfg)
		_, grad, err := newGraph(t, cfg).Gradient(params, bumpy)
		if err != nil {
			t.Fatalf("%+v: %v", cfg, err)
		}
		p := named(cfg, params)
		loss := func() float64 {
			var sum float64
			for i := range cfg.Length * cfg.Dim {
				x := byHand(cfg, p, i/cfg.Dim, i%cfg.Dim)
				sum += (1+float64(i%11)/3)*math.Sin(x) + x*x/2
			}
			return sum
		}
		for _, part := range cfg.Tensors() {
			dir := make([]float32, part.Size())
			gauss.New(4, part.Name).Fill(dir, 1)
			const h = 1e-6
			at := func(h float64) float64 {
				kept := slices.Clone(p[part.Name])
				for i := range dir {
					p[part.Name][i] += h * float64(dir[i])
				}
				v := loss()
				p[part.Name] = kept
				return v
			}
			got := (at(h) - at(-h)) / (2 * h)
			var want, size float64
			for i := range dir {
				g := float64(grad[part.Offset+i])
				want += float64(dir[i]) * g
				size += math.Abs(float64(dir[i]) * g)
			}
			if math.Abs(got-want) > 1e-4*size+1e-5 {
				t.Errorf("%+v: %s: difference %v, gradient %v", cfg, part.Name, got, want)
			}
		}
	}
}

// TestProbeHasNoGradientBelowZero: a negative entry of Σ does not contribute.
func TestProbeHasNoGradientBelowZero(t *testing.T) {
	cfg := Config{Method: "svd", Dim: 6, Length: 4, Bottleneck: 4}
	params := scrambled(cfg)
	_, grad, err := newGraph(t, cfg).Gradient(params, bumpy)
	if err != nil {
		t.Fatal(err)
	}
	for k, part := 0, cfg.Tensors()[1]; k < 4; k++ {
		if g := grad[part.Offset+k]; (params[part.Offset+k] > 0) != (g != 0) {
			t.Errorf("entry %d of Σ is %v and has gradient %v", k, params[part.Offset+k], g)
		}
	}
	got, err := ProbeOf(cfg, params)
	if want := (Probe{Positive: 2, Negative: 2, Rank: 2}); err != nil || got != want {
		t.Errorf("probe %+v (%v), want %+v", got, err, want)
	}
	if _, err := ProbeOf(dpt(3, 2, 4), nil); err == nil {
		t.Error("a probe of dpt")
	}
}

func TestMethodsSameBits(t *testing.T) {
	for _, cfg := range []Config{
		{Method: "pt", Dim: 64, Length: 20}, {Method: "respt", Dim: 64, Length: 20, Bottleneck: 40},
		{Method: "svd", Dim: 64, Length: 20, Bottleneck: 20},
	} {
		params := initial(cfg, 5, 0.3)
		first := newGraph(t, cfg)
		_, want, err := first.Gradient(params, bumpy)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range []*Graph{first, newGraph(t, cfg)} {
			if _, _, err := g.Gradient(initial(cfg, 9, 2), bumpy); err != nil {
				t.Fatal(err)
			}
			if _, got, err := g.Gradient(params, bumpy); err != nil || !slices.Equal(got, want) {
				t.Errorf("%+v: the gradient differs (%v)", cfg, err)
			}
		}
	}
}

// TestTrainableParameters compares the sizes with the papers' tables for prompts
// of 100 and of 10 tokens; the tables truncate to thousands.
func TestTrainableParameters(t *testing.T) {
	for _, c := range []struct {
		method      string
		dim, length int
		want        int
	}{
		{"dpt", 512, 100, 6_120}, {"dpt", 768, 100, 8_680}, {"dpt", 1024, 100, 11_240},
		{"pt", 512, 100, 51_200}, {"pt", 768, 100, 76_800}, {"pt", 1024, 100, 102_400},
		{"respt", 512, 100, 462_736}, {"respt", 768, 100, 693_904}, {"respt", 1024, 100, 925_072},
		{"respt", 512, 10, 416_656}, {"respt", 768, 10, 624_784}, {"respt", 1024, 10, 832_912},
		{"svd", 768, 100, 768*100 + 100 + 100*100},
	} {
		cfg := Config{
			Method:     c.method,
			Dim:        c.dim,
			Length:     c.length,
			Bottleneck: DefaultBottleneck(c.method, c.dim, c.length),
		}
		if err := cfg.Validate(); err != nil || cfg.Size() != c.want {
			t.Errorf("%+v has %d numbers (%v), want %d", cfg, cfg.Size(), err, c.want)
		}
	}
}

func TestMethodsRefuse(t *testing.T) {
	for want, bad := range map[string]Config{
		`unknown method "lora", want one of ` + strings.Join(Names(), ", "): {
			Method:     "lora",
			Dim:        1,
			Length:     1,
			Bottleneck: 1,
		},
		"bottleneck is 3, want 0: method pt has none": {Method: "pt", Dim: 2, Length: 2, Bottleneck: 3},
		"bottleneck is 0, want a number from 1":       {Method: "respt", Dim: 2, Length: 2},
		"bottleneck is 4, want at most 3":             {Method: "svd", Dim: 3, Length: 9, Bottleneck: 4},
		"has more than":                               {Method: "pt", Dim: 1 << 20, Length: 1 << 20},
	} {
		if _, err := NewGraph(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	for want, s := range map[string]Start{
		"want one positive":             {Seed: 1},
		"uniform in ±0.5, want one":     {Std: 1, Uniform: 0.5},
		"standard deviation NaN":        {Std: math.NaN()},
		"3 numbers in the initial rows": {Std: 1, Rows: make([]float32, 3)},
	} {
		if _, err := (Config{Method: "pt", Dim: 2, Length: 2}).Init(s); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if _, err := (Config{Method: "svd", Dim: 2, Length: 2, Bottleneck: 2}).Init(Start{
		Std:  1,
		Rows: make([]float32, 4),
	}); err == nil {
		t.Error("the rank probe starts from rows")
	}
}

func TestDetect(t *testing.T) {
	for _, cfg := range slices.Concat(sizes, others) {
		shapes := map[string][]int{}
		for _, part := range cfg.Tensors() {
			shapes[part.Name] = part.Shape
		}
		if got, ok := detect(cfg.Dim, cfg.Length, shapes); !ok || got != cfg {
			t.Errorf("detected %+v (%v), want %+v", got, ok, cfg)
		}
		shapes["more"] = []int{1}
		if got, ok := detect(cfg.Dim, cfg.Length, shapes); ok {
			t.Errorf("%+v with one tensor more is detected as %+v", cfg, got)
		}
	}
	if _, ok := detect(3, 2, map[string][]int{"A": {3}, "B": {1, 2}}); ok {
		t.Error("A of one dimension is detected")
	}
}

// TestInitUniform pins the uniform start and checks its range.
func TestInitUniform(t *testing.T) {
	params, err := dpt(64, 10, 100).Init(Start{Seed: 1, Uniform: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	var low, high, sum float64
	for _, v := range params {
		low, high, sum = min(low, float64(v)), max(high, float64(v)), sum+float64(v)
	}
	if low < -0.5 || low > -0.49 || high > 0.5 || high < 0.49 || math.Abs(sum/float64(len(params))) > 0.03 {
		t.Errorf("numbers from %v to %v with mean %v, want ±0.5 and 0", low, high, sum/float64(len(params)))
	}
	if got, want := fmt.Sprint(params[:3]), "[-0.39921844 -0.070817016 -0.22533284]"; got != want {
		t.Errorf("starts with %s, want %s", got, want)
	}
}

func TestInitResidual(t *testing.T) {
	cfg := Config{Method: "respt", Dim: 16, Length: 2, Bottleneck: 25}
	rows := make([]float32, 32)
	gauss.New(1, "rows").Fill(rows, 3)
	params, err := cfg.Init(Start{Seed: 1, Std: 1, Rows: rows})
	if err != nil {
		t.Fatal(err)
	}
	p := named(cfg, params)
	if !slices.Equal(params[:32], rows) {
		t.Error("the rows are not those given")
	}
	for name, bound := range map[string]float64{
		"mlp.down.weight": 0.25,
		"mlp.down.bias":   0.25,
		"mlp.up.weight":   0.2,
		"mlp.up.bias":     0.2,
	} {
		if least, most := slices.Min(p[name]), slices.Max(p[name]); least < -bound || most > bound ||
			most-least < bound {
			t.Errorf("%s is from %v to %v, want ±%v", name, least, most, bound)
		}
	}
	for i := range 16 {
		if p["mlp.norm.weight"][i] != 1 || p["mlp.norm.bias"][i] != 0 {
			t.Fatal("the norm does not start at 1 and 0")
		}
	}
}

func TestInitProbeIsPositive(t *testing.T) {
	cfg := Config{Method: "svd", Dim: 64, Length: 50, Bottleneck: 50}
	got, err := ProbeOf(cfg, initial(cfg, 1, 1))
	if want := (Probe{Positive: 50, Rank: 50}); err != nil || got != want {
		t.Errorf("a fresh probe is %+v (%v), want %+v", got, err, want)
	}
}

// TestInitFactors: dpt starts from the product nearest to given rows.
func TestInitFactors(t *testing.T) {
	const e, c = 12, 7
	low := dpt(e, 3, c)
	exact, err := Embeddings(low, initial(low, 8, 1))
	if err != nil {
		t.Fatal(err)
	}
	full := make([]float32, c*e)
	gauss.New(2, "rows").Fill(full, 1)
	_, values, _ := svdOf(full, c, e)
	for _, tc := range []struct {
		name string
		cfg  Config
		rows []float32
		want float64 // distance of the nearest product
	}{
		{"of lower rank", dpt(e, 5, c), exact, 0},
		{"of the rank", low, exact, 0},
		{"of full rank", dpt(e, 4, c), full,
			math.Sqrt(values[4]*values[4] + values[5]*values[5] + values[6]*values[6])},
		{"more inner dimensions than rows", dpt(e, 9, c), full, 0},
	} {
		params, err := tc.cfg.Init(Start{Seed: 1, Std: 1, Rows: tc.rows})
		if err != nil {
			t.Fatal(err)
		}
		got, err := Embeddings(tc.cfg, params)
		if err != nil {
			t.Fatal(err)
		}
		var sum float64
		for i := range got {
			d := float64(got[i]) - float64(tc.rows[i])
			sum += d * d
		}
		if math.Abs(math.Sqrt(sum)-tc.want) > 1e-5 {
			t.Errorf("%s: the product is %v away, want %v", tc.name, math.Sqrt(sum), tc.want)
		}
		// Every number of A has a gradient: each inner dimension of B has numbers.
		for k := range tc.cfg.Bottleneck {
			if row := params[e*tc.cfg.Bottleneck+k*c:][:c]; slices.Max(row) == 0 && slices.Min(row) == 0 {
				t.Errorf("%s: row %d of B is zero", tc.name, k)
			}
		}
	}
}

// TestSVD checks the decomposition's definition, and a known case.
func TestSVD(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {3, 8}, {8, 3}, {20, 20}} {
		m, n := size[0], size[1]
		matrix := make([]float32, m*n)
		gauss.New(6, "matrix").Fill(matrix, 2)
		left, values, right := svdOf(matrix, m, n)
		if !slices.IsSortedFunc(values, func(a, b float64) int { return int(math.Copysign(1, b-a)) }) ||
			rankOf(values, m, n) != min(m, n) {
			t.Errorf("%d×%d: values %v", m, n, values)
		}
		for i := range m {
			for j := range n {
				var sum float64
				for k := range m {
					sum += values[k] * left[k][i] * right[k][j]
				}
				if math.Abs(sum-float64(matrix[i*n+j])) > 1e-12 {
					t.Fatalf("%d×%d: number %d, %d is %v, want %v", m, n, i, j, sum, matrix[i*n+j])
				}
			}
			for k := range i {
				if d := dot(left[i], left[k]); math.Abs(d) > 1e-12 {
					t.Errorf("%d×%d: left vectors %d and %d have product %v", m, n, i, k, d)
				}
			}
		}
	}
	_, values, _ := svdOf([]float32{3, 0, 4, 5}, 2, 2)
	if math.Abs(values[0]-math.Sqrt(45)) > 1e-12 || math.Abs(values[1]-math.Sqrt(5)) > 1e-12 {
		t.Errorf("singular values %v, want √45 and √5", values)
	}
}
