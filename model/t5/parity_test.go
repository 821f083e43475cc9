package t5

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/engine/portable"
)

// golden is one directory of model/parity/testdata: what Transformers computes for a tiny random
// T5.
type golden struct {
	dir     string
	pairs   []Pair
	maxNew  int
	prompt  []float32
	want    map[string]goldenRun
	tensors *checkpoint.File
}

// goldenRun is an entry of expected.json.
type goldenRun struct {
	Loss   float64   `json:"loss"`
	Losses []float64 `json:"losses"`
	Tokens []int     `json:"tokens"`
	Greedy [][]int32 `json:"greedy"`
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func openGolden(t *testing.T, version string) golden {
	t.Helper()
	g := golden{dir: filepath.Join("..", "parity", "testdata", version)}
	var batch struct {
		Pairs []struct{ Source, Target []int32 }
		Max   int `json:"max_new_tokens"`
	}
	readJSON(t, filepath.Join(g.dir, "batch.json"), &batch)
	for _, p := range batch.Pairs {
		g.pairs = append(g.pairs, Pair(p))
	}
	g.maxNew = batch.Max
	readJSON(t, filepath.Join(g.dir, "expected.json"), &g.want)
	p, err := checkpoint.ReadPrompt(filepath.Join(g.dir, "prompt.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	g.prompt = p.Embeddings
	if g.tensors, err = checkpoint.Open(filepath.Join(g.dir, "expected.safetensors")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.tensors.Close() })
	return g
}

func (g golden) tensor(t *testing.T, name string) []float32 {
	t.Helper()
	ts, err := g.tensors.Tensor(name)
	if err != nil {
		t.Fatal(err)
	}
	data, err := ts.Float32()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// variants are ways to compute that all give the same results but for rounding. A bound of 1 makes
// every example a pass of its own.
var variants = map[string]Options{
	"": {}, "no absorption": {NoAbsorption: true}, "no first layer": {NoFirstLayer: true}, "one by one": {MaxElems: 1},
}

// load opens the golden's model on an engine in F.
func load[F portable.Float](t *testing.T, dir string, threads int, opt Options) *Model {
	t.Helper()
	ckpt, err := checkpoint.OpenModel(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ckpt.Close() })
	cfg, err := ParseConfig(ckpt.Config())
	if err != nil {
		t.Fatal(err)
	}
	eng := portable.New[F](threads)
	t.Cleanup(func() { eng.Close() })
	m, err := New(eng, cfg, ckpt, opt)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// maxDiff is the largest absolute difference.
func maxDiff(got, want []float32) float64 {
	var d float64
	for i := range want {
		d = max(d, math.Abs(float64(got[i])-float64(want[i])))
	}
	return d
}

// relDiff is |got - want| / |want| in the 2-norm.
func relDiff(got []float64, want []float32) float64 {
	var d, n float64
	for i := range want {
		d += (got[i] - float64(want[i])) * (got[i] - float64(want[i]))
		n += float64(want[i]) * float64(want[i])
	}
	return math.Sqrt(d / n)
}

// TestParityWithTransformers compares the model with goldens that Transformers and PyTorch made,
// with and without a prompt.
func TestParityWithTransformers(t *testing.T) {
	for _, version := range []string{"v10", "v11"} {
		g := openGolden(t, version)
		sources := make([][]int32, len(g.pairs))
		for i, p := range g.pairs {
			sources[i] = p.Source
		}
		for variant, opt := range variants {
			testParity(t, g, load[float32](t, g.dir, 2, opt), sources, strings.TrimSuffix(version+"/"+variant, "/"))
		}
	}
}

func testParity(t *testing.T, g golden, m *Model, sources [][]int32, name string) {
	for _, run := range []string{"prompt", "plain"} {
		t.Run(name+"/"+run, func(t *testing.T) {
			prompt, want := g.prompt, g.want[run]
			if run == "plain" {
				prompt = nil
			}
			enc, err := m.Encode(prompt, sources)
			if err != nil {
				t.Fatal(err)
			}
			if d := maxDiff(slices.Concat(enc...), g.tensor(t, run+".encoder")); !(d <= 1e-4) {
				t.Errorf("encoder output differs by %.2g, want at most 1e-4", d)
			}
			logits, err := m.Logits(prompt, g.pairs)
			if err != nil {
				t.Fatal(err)
			}
			if d := maxDiff(slices.Concat(logits...), g.tensor(t, run+".logits")); !(d <= 1e-4) {
				t.Errorf("logits differ by %.2g, want at most 1e-4", d)
			} else {
				t.Logf("logits differ by %.2g", d)
			}
			losses := make([]float64, len(g.pairs))
			grad := make([]float64, len(prompt))
			if err := m.LossGrad(prompt, g.pairs, losses, grad); err != nil {
				t.Fatal(err)
			}
			checkLosses(t, losses, want)
			scored := make([]float64, len(g.pairs))
			if err := m.Score(prompt, g.pairs, scored); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(scored, losses) {
				t.Errorf("Score gives %v, LossGrad %v: want equal bits", scored, losses)
			}
			if prompt != nil {
				tokens := 0
				for _, n := range want.Tokens {
					tokens += n
				}
				for i := range grad {
					grad[i] /= float64(tokens)
				}
				if d := relDiff(grad, g.tensor(t, "dP")); !(d <= 1e-4) {
					t.Errorf("dP differs by %.2g relative, want at most 1e-4", d)
				} else {
					t.Logf("dP differs by %.2g relative", d)
				}
			}
			out, err := m.Generate(prompt, sources, g.maxNew)
			if err != nil {
				t.Fatal(err)
			}
			for i := range out {
				if !slices.Equal(out[i], want.Greedy[i]) {
					t.Errorf("source %d: greedy output %v, want %v", i, out[i], want.Greedy[i])
				}
			}
			evaluated := make([]float64, len(g.pairs))
			outputs, err := m.Evaluate(prompt, g.pairs, g.maxNew, evaluated)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(evaluated, losses) || !slices.EqualFunc(outputs, out, slices.Equal) {
				t.Errorf("Evaluate gives losses %v and outputs %v, Score %v and Generate %v",
					evaluated, outputs, losses, out)
			}
		})
	}
}

func checkLosses(t *testing.T, losses []float64, want goldenRun) {
	t.Helper()
	var sum float64
	tokens := 0
	for i, l := range losses {
		if math.Abs(l-want.Losses[i]) > 1e-5*want.Losses[i] {
			t.Errorf("pair %d: loss %.8g, want %.8g within 1e-5 relative", i, l, want.Losses[i])
		}
		sum += l
		tokens += want.Tokens[i]
	}
	if mean := sum / float64(tokens); math.Abs(mean-want.Loss) > 1e-5*want.Loss {
		t.Errorf("mean token loss %.8g, want %.8g within 1e-5 relative", mean, want.Loss)
	}
}
