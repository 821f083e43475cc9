package parity_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/tokenizer"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/prompt"
)

// fewglue is the directory of real SuperGLUE examples, beside the repository, which may be missing.
var fewglue = filepath.Join("..", "..", "..", "shared", "data", "fewglue")

// trajectory is testdata/trajectory/NAME.json.
type trajectory struct {
	Model           string
	Method          string
	Bottleneck      int
	Task            string
	Split           string
	Template        dataset.Template
	Examples        []struct{ Source, Target string }
	MaxSourceLength int `json:"max_source_length"`
	MaxTargetLength int `json:"max_target_length"`
	LR              float64
	WeightDecay     float64 `json:"weight_decay"`
	Warmup          float64
	MaxNorm         float64 `json:"max_norm"`
	Steps           []struct {
		Examples []int
		Loss     float64
		LR       float64
		GradNorm float64 `json:"grad_norm"`
	}
}

// TestTrajectoryInvented follows PyTorch for 20 steps of each method on text that the golden
// carries.
func TestTrajectoryInvented(t *testing.T) {
	for name, method := range map[string]string{
		"invented":       "dpt",
		"invented-pt":    "pt",
		"invented-respt": "respt",
		"invented-svd":   "svd",
	} {
		t.Run(method, func(t *testing.T) {
			var want trajectory
			readJSON(t, "trajectory/"+name+".json", &want)
			if want.Method != method {
				t.Fatalf("the golden is of %s", want.Method)
			}
			pairs := make([]model.Pair, len(want.Examples))
			for i, e := range want.Examples {
				pairs[i] = want.pair(e.Source, e.Target)
			}
			follow(t, name, want, pairs)
		})
	}
}

// TestTrajectoryRTE follows PyTorch for 20 steps on real examples, read and written out by the
// package dataset.
func TestTrajectoryRTE(t *testing.T) {
	var want trajectory
	readJSON(t, "trajectory/rte.json", &want)
	task, err := dataset.Lookup(want.Task)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(fewglue); err != nil {
		t.Skipf("no real examples: %v", err)
	}
	split, err := dataset.Load(os.DirFS(fewglue), task, want.Split, want.Template)
	if err != nil {
		t.Fatal(err)
	}
	pairs := make([]model.Pair, len(split.Train))
	for i, e := range split.Train {
		pairs[i] = want.pair(e.Source, e.Target)
	}
	follow(t, "rte", want, pairs)
}

func (w trajectory) pair(source, target string) model.Pair {
	bytes := tokenizer.NewByteLevel(125)
	return model.Pair{
		Source: tokenizer.EncodeTruncated(bytes, source, w.MaxSourceLength),
		Target: tokenizer.EncodeTruncated(bytes, target, w.MaxTargetLength),
	}
}

// follow trains from the golden's start and compares the first gradient, every step's loss,
// learning rate and gradient norm, and the final state.
func follow(t *testing.T, name string, want trajectory, pairs []model.Pair) {
	t.Helper()
	b := backbone(t, want.Model)
	e := b.Dim()
	given := tensors(t, "trajectory/"+name+".safetensors")
	cfg := prompt.Config{Method: want.Method, Dim: e, Length: length, Bottleneck: want.Bottleneck}
	initial := map[string][]float32{}
	for _, part := range cfg.Tensors() {
		initial[part.Name] = given(part.Name+".initial", part.Shape...)
	}
	state := optim.NewState(parameters(t, cfg, initial))
	graph, err := prompt.NewGraph(cfg)
	if err != nil {
		t.Fatal(err)
	}
	adam := optim.NewAdamW(want.LR, want.WeightDecay)
	total := int64(len(want.Steps))
	schedule := optim.Linear{Warmup: optim.WarmupSteps(want.Warmup, total), Total: total}

	var worstLoss, worstNorm float64
	for i, step := range want.Steps {
		chosen := make([]model.Pair, len(step.Examples))
		for j, index := range step.Examples {
			chosen[j] = pairs[index]
		}
		loss, grad, err := graph.Gradient(state.Params, meanLoss(b, chosen, nil))
		if err != nil {
			t.Fatalf("step %d: %v", i+1, err)
		}
		if i == 0 && want.Method != "dpt" { // TestGradient checks those of dpt
			for _, part := range cfg.Tensors() {
				within(t, "first gradient of "+part.Name,
					relativeNorm(grad[part.Offset:part.Offset+part.Size()],
						given(part.Name+".gradient", part.Shape...)), gradientBound)
			}
		}
		norm := optim.ClipGlobalNorm(grad, want.MaxNorm)
		factor := schedule.Factor(int64(i))
		if d := factor*adam.LR - step.LR; d > 1e-12 || d < -1e-12 {
			t.Fatalf("step %d: learning rate %v, want %v", i+1, factor*adam.LR, step.LR)
		}
		if err := adam.Update(state, grad, factor); err != nil {
			t.Fatalf("step %d: %v", i+1, err)
		}
		worstLoss = max(worstLoss, relative(loss, step.Loss))
		worstNorm = max(worstNorm, relative(norm, step.GradNorm))
		if i == len(want.Steps)-1 {
			within(t, "loss of the last step", relative(loss, step.Loss), trajectoryBound)
		}
	}
	within(t, "loss of any step", worstLoss, trajectoryBound)
	within(t, "gradient norm of any step", worstNorm, 10*trajectoryBound)
	for _, part := range cfg.Tensors() {
		got := state.Params[part.Offset : part.Offset+part.Size()]
		within(t, "final "+part.Name, relativeNorm(got, given(part.Name+".final", part.Shape...)), trajectoryBound)
	}
}
