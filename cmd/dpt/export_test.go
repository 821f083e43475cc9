package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dptune/dpt/cmd/internal/cmdtest"
	"github.com/dptune/dpt/model/checkpoint"
)

func TestExport(t *testing.T) {
	dir := t.TempDir()
	p := newPrompt(t)
	file := writePrompt(t, dir, "prompt.safetensors", p)
	out := filepath.Join(dir, "deep", "adapter")
	mustRun(t, nil, "export", "--prompt", file, "--format", "peft", "--out", out, "--base-model", "some/model")
	checkAdapter(t, out, p, "some/model")
	if names := listDir(t, filepath.Dir(out)); !slices.Equal(names, []string{"adapter"}) {
		t.Errorf("beside the adapter: %v, want nothing", names)
	}

	// An empty directory is accepted. One with files needs --force, and then the other files stay.
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	mustRun(t, nil, "export", "--prompt", file, "--out", empty)
	writeFile(t, empty, "notes.txt", "mine")
	if code, _, errs := dpt(t, nil, "export", "--prompt", file, "--out", empty); code != 1 {
		t.Errorf("into a directory with files: exit %d, stderr %q, want 1", code, errs)
	}
	mustRun(t, nil, "export", "--prompt", file, "--out", empty, "--force", "--base-model", "other")
	checkAdapter(t, empty, p, "other")
	want := []string{"adapter_config.json", "adapter_model.safetensors", "notes.txt"}
	if names := listDir(t, empty); !slices.Equal(names, want) {
		t.Errorf("after --force: %v", names)
	}

	// PEFT's own file reads as a prompt.
	mustRun(t, nil, "predict", "--prompt", filepath.Join(out, "adapter_model.safetensors"))
	mustRun(t, nil, "predict", "--prompt", out)
}

func checkAdapter(t *testing.T, dir string, p checkpoint.Prompt, base string) {
	t.Helper()
	data := cmdtest.ReadFile(t, dir, "adapter_config.json")
	var config struct {
		Base   string `json:"base_model_name_or_path"`
		Type   string `json:"peft_type"`
		Tokens int    `json:"num_virtual_tokens"`
		Dim    int    `json:"token_dim"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	if config.Base != base || config.Type != "PROMPT_TUNING" || config.Tokens != p.Length || config.Dim != p.Dim {
		t.Errorf("adapter_config.json: %+v", config)
	}
	got, err := checkpoint.ReadPrompt(filepath.Join(dir, "adapter_model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Embeddings, p.Embeddings) {
		t.Error("the adapter's numbers are not the prompt's")
	}
}

func listDir(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
