package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/cmdtest"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/lab/tinyrandom"
	"github.com/dptune/dpt/model/prompt"
)

// tinyModel is the directory of the model that commands run.
var tinyModel string

// TestMain sets a proxy that nobody serves: no connection may use it.
func TestMain(m *testing.M) {
	os.Setenv("HTTPS_PROXY", "http://127.0.0.1:9")
	os.Unsetenv("NO_PROXY")
	os.Exit(tinyrandom.Main(m, &tinyModel))
}

// dpt runs the program and returns its exit code and what it wrote. A command that runs a model has
// the small random one unless args name another.
func dpt(t *testing.T, stdin io.Reader, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	runsModel := len(args) > 0 && slices.Contains([]string{"score", "eval", "predict"}, args[0])
	if runsModel && !slices.Contains(args, "--model") {
		args = slices.Insert(slices.Clone(args), 1, "--model", tinyModel)
	}
	return dptAsIs(t, stdin, args...)
}

// dptAsIs runs the program as main does.
func dptAsIs(t *testing.T, stdin io.Reader, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	code = cli.Run(t.Context(), programName(args), run, args, cli.IO{In: stdin, Out: &out, Err: &errs})
	return code, out.String(), errs.String()
}

// mustRun runs a command that must succeed and returns its output.
func mustRun(t *testing.T, stdin io.Reader, args ...string) string {
	t.Helper()
	code, out, errs := dpt(t, stdin, args...)
	if code != 0 {
		t.Fatalf("dpt %s: exit %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

// writeFile writes a file of the test and returns its path.
func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	cmdtest.WriteFile(t, path, []byte(text))
	return path
}

// newPrompt is a small prompt with factors for the model, drawn from a seed.
func newPrompt(t *testing.T) checkpoint.Prompt {
	t.Helper()
	return newPromptOf(t, tinyrandom.DModel)
}

func newPromptOf(t *testing.T, dim int) checkpoint.Prompt {
	t.Helper()
	cfg := prompt.Config{Method: "dpt", Dim: dim, Length: 5, Bottleneck: 3}
	params, err := cfg.Init(prompt.Start{Seed: 1, Std: 0.7})
	if err != nil {
		t.Fatal(err)
	}
	return promptOf(t, cfg, params)
}

func promptOf(t *testing.T, cfg prompt.Config, params []float32) checkpoint.Prompt {
	t.Helper()
	p, err := cfg.File(params, map[string]string{"task": "copa", "template": "t5"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func writePrompt(t *testing.T, dir, name string, p checkpoint.Prompt) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := checkpoint.WritePrompt(path, p); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWrongUsage(t *testing.T) {
	dir := t.TempDir()
	file := writeFile(t, dir, "pairs.jsonl", `{"source":"a","target":"b"}`+"\n")
	for _, test := range []struct {
		args string
		want string // in the one line on standard error
	}{
		{"", "dpt: no command given, want tokenize"},
		{"train", "dpt: unknown command train, want tokenize"},
		{"--model x score", "dpt: found flag --model before a command"},
		{"help no", "dpt: unknown command no"},
		{"help score eval", "dpt: stray argument eval"},
		{"tokenize", "dpt tokenize: --tokenizer is missing"},
		{"tokenize --tokenizer " + dir + "/no", "nothing there, want a file or directory or the word byte"},
		{"tokenize --tokenizer byte more", "stray argument more"},
		{"tokenize --tokenizer byte --eos=2", "--eos 2: want true or false"},
		{"score", "dpt score: --data is missing"},
		{"score --data " + dir, "found a directory, want a file"},
		{"score --data " + file + " --grad g", "--grad g without --prompt"},
		{"score --data " + file + " --grad " + dir + "/no/g", "want a directory to write in"},
		{"score --data " + file + " --prompt " + file + " --grad g --logits g", "--grad and --logits are both g"},
		{"score --data " + file + " --threads -1", "--threads -1: want at least 0"},
		{"score --data " + file + " --max-source-length x", "--max-source-length x: want a whole number"},
		{"score --data " + file + " --gpu 0 --cpu", "--gpu 0 and --cpu"},
		{"score --data " + file + " --model " + file, "found a file, want a directory"},
		{"eval", "dpt eval: --task is missing"},
		{"eval --task squad", "--task squad: want one of boolq, cb,"},
		{"eval --task rte --split dev", "--split dev: want train, val, validation or test"},
		{"eval --task rte --template x", "--template x: want dpt or t5"},
		{"eval --task rte --limit -1", "--limit -1: want at least 0"},
		{"eval --task rte --max-target-length 0", "--max-target-length 0: want at least 1"},
		{"predict --max-target-length 0", "--max-target-length 0: want at least 1"},
		{"predict --prompt " + dir, "found a directory, want a file"},
		{"predict --promt x", "unknown flag --promt, did you mean --prompt?"},
		{"export --out x", "dpt export: --prompt is missing"},
		{"certs a", "dpt certs: --out is missing"},
		{"certs --out x", "dpt certs: no host given"},
		{"certs --out x a b,c:7", `host "c:7" in b,c:7: found a port, want a DNS name or an IP address`},
		{"certs --out x a --days 0", "--days 0: want 1 to 36500"},
		{"export --prompt " + file, "dpt export: --out is missing"},
		{"export --prompt " + file + " --out x --format onnx", "--format onnx: want peft"},
	} {
		code, out, errs := dpt(t, nil, strings.Fields(test.args)...)
		if code != cli.ExitUsage || out != "" || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, test.want) ||
			!strings.Contains(errs, "--help)") {
			t.Errorf("dpt %s: exit %d, stdout %q, stderr %q; want exit 2 and one line with %q",
				test.args, code, out, errs, test.want)
		}
	}
}

func TestFailures(t *testing.T) {
	dir := t.TempDir()
	const dim = tinyrandom.DModel
	misfit := fmt.Sprintf("vectors of %d numbers, want %d, the d_model of model", dim/2, dim)
	good := `{"source":"a","target":"b"}` + "\n"
	other := writePrompt(t, dir, "other.safetensors", newPromptOf(t, dim/2))
	fits := writePrompt(t, dir, "fits.safetensors", newPrompt(t))
	noTask := newPrompt(t)
	noTask.Metadata = nil
	pairs := writeFile(t, dir, "pairs.jsonl", good)
	for _, test := range []struct {
		name  string
		stdin string
		args  []string
		want  string
	}{
		{"pairs: not JSON", good + "oops\n", []string{"score", "--data", "-"},
			"standard input: line 2: invalid character 'o'"},
		{"pairs: no target", good + good + `{"source":"a"}`, []string{"score", "--data", "-"},
			`standard input: line 3: no "target"`},
		{"pairs: wrong kind", `{"source":3,"target":"b"}`, []string{"score", "--data", "-"},
			"line 1: field source: found number"},
		{"pairs: empty line", good + "\n" + good, []string{"score", "--data", "-"}, "line 2: found an empty line"},
		{"pairs: none", "", []string{"score", "--data", "-"}, "standard input: no lines"},
		{"prompt: other model", "", []string{"score", "--data", pairs, "--prompt", other}, misfit},
		{"prompt: other model", "", []string{"predict", "--prompt", other}, misfit},
		{"prompt: not one", "", []string{"predict", "--prompt", pairs}, pairs},
		{"source: number", "\"a\"\n5\n", []string{"predict"},
			"standard input: line 2: found number, want a JSON string"},
		{"source: null", "null", []string{"predict"}, "line 1: no source"},
		{"tokenize: null", " null", []string{"tokenize", "--tokenizer", "byte"}, "line 1: found null"},
		{"tokenize: object", "\"a\"\n\"b\"\n{}", []string{"tokenize", "--tokenizer", "byte"},
			"line 3: found object, want a JSON string"},
		{"tokenize: cut off", `"a`, []string{"tokenize", "--tokenizer", "byte"},
			"line 1: unexpected end of JSON input"},
		{"eval: no data", "", []string{"eval", "--task", "rte", "--data", dir}, "RTE"},
		{"export: not a prompt", "", []string{"export", "--prompt", pairs, "--out", filepath.Join(dir, "x")}, pairs},
		{"export: not empty", "", []string{"export", "--prompt", fits, "--out", dir},
			"want an empty or new directory, or --force"},
		{"no such GPU", "", []string{"predict", "--gpu", "99"}, "gpu"},
	} {
		code, _, errs := dpt(t, strings.NewReader(test.stdin), test.args...)
		if code != cli.ExitFailed || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, test.want) ||
			!strings.HasPrefix(errs, "dpt "+test.args[0]+": ") {
			t.Errorf("%s: exit %d, stderr %q; want exit 1 and one line with %q", test.name, code, errs, test.want)
		}
	}
	code, _, errs := dpt(t, nil, "eval", "--prompt", writePrompt(t, dir, "notask.safetensors", noTask))
	if code != cli.ExitUsage || !strings.Contains(errs, "does not say which task") {
		t.Errorf("eval with a prompt of no task: exit %d, stderr %q", code, errs)
	}
}

func TestHelp(t *testing.T) {
	overview := mustRun(t, nil, "--help")
	for _, s := range subcommands() {
		if !strings.Contains(overview, s.short) {
			t.Errorf("dpt --help lacks %s", s.name)
		}
		help := mustRun(t, nil, s.name, "--help")
		if again := mustRun(t, nil, "help", s.name); again != help {
			t.Errorf("dpt help %s differs from dpt %s --help", s.name, s.name)
		}
		if !strings.HasPrefix(help, "Usage: dpt "+s.name) ||
			!strings.Contains(help, "\nExample:\n") && !strings.Contains(help, "\nExamples:\n") {
			t.Errorf("help of %s lacks usage or example:\n%s", s.name, help)
		}
		for line := range strings.Lines(help) {
			if !strings.HasPrefix(line, "    ") && len(line) > 101 {
				t.Errorf("help of %s: line wider than 100 columns: %s", s.name, line)
			}
		}
	}
	for _, args := range [][]string{{"version"}, {"--version"}, {"score", "--version"}} {
		if out := mustRun(t, nil, args...); !strings.HasPrefix(out, "dpt ") || !strings.Contains(out, "engines: ") {
			t.Errorf("dpt %v: %q", args, out)
		}
	}
}

// jsonLines decodes every line of an output.
func jsonLines[T any](t *testing.T, out string) []T {
	t.Helper()
	var values []T
	for line := range strings.Lines(out) {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		values = append(values, v)
	}
	return values
}

// near reports whether two numbers agree to a relative tolerance.
func near(a, b, tolerance float64) bool {
	return math.Abs(a-b) <= tolerance*max(math.Abs(a), math.Abs(b))
}
