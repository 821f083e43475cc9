package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestPredictKeepsOrder(t *testing.T) {
	dir := t.TempDir()
	p := writePrompt(t, dir, "prompt.safetensors", newPrompt(t))
	args := []string{"predict", "--prompt", p, "--max-target-length", "6"}
	n := 2*passPairs + 5
	var in strings.Builder
	sources := make([]string, n)
	for i := range n {
		sources[i] = fmt.Sprintf("%d %s?", i*i, strings.Repeat("abc ", i%9))
		line, err := json.Marshal(sources[i])
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 {
			line = fmt.Appendf(nil, `{"source":%s,"target":"unused"}`, line)
		}
		in.Write(append(line, '\n'))
	}
	outputs := jsonLines[string](t, mustRun(t, strings.NewReader(in.String()), args...))
	if len(outputs) != n {
		t.Fatalf("%d outputs, want %d", len(outputs), n)
	}
	differ := false
	for i := 0; i < n; i += 7 {
		line, err := json.Marshal(sources[i])
		if err != nil {
			t.Fatal(err)
		}
		alone := jsonLines[string](t, mustRun(t, strings.NewReader(string(line)), args...))
		if len(alone) != 1 || alone[0] != outputs[i] {
			t.Errorf("source %d alone gives %q, want %q", i, alone, outputs[i])
		}
		differ = differ || outputs[i] != outputs[0]
	}
	if !differ {
		t.Error("all outputs are equal: this test cannot see their order")
	}
	if out := mustRun(t, nil, "predict"); out != "" {
		t.Errorf("no input gives %q, want nothing", out)
	}
}
