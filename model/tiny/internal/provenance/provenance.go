// Package provenance is part of the lab, not of the trainer: it is the record of how the embedded
// model was made, as provenance.json holds it. It is read from a run's directory and compared with
// the model's files.
package provenance

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/lab/pretrain"
	"github.com/dptune/dpt/model/t5"
)

// Provenance describes how a model was made, and its files.
type Provenance struct {
	Date    string          `json:"date"`           // on which it was made, as 2006-01-02
	Note    string          `json:"note,omitempty"` // further facts, such as that the run continued under another build
	Command string          `json:"command"`        // that made it, with its final flags
	Run     pretrain.Record `json:"run"`            // the settings and texts that the command stands for
	HeldOut []Look          `json:"held_out"`       // the last look at texts that the run had not seen
	Model   Model           `json:"model"`
}

// Look is an evaluation on held-out texts of one kind: pairs of a skill, spans of documents, or
// all.
type Look struct {
	Step     int64   `json:"step"`
	Kind     string  `json:"kind"`
	Examples int     `json:"examples"`
	Loss     float64 `json:"held_out_loss"` // mean of target tokens, nats
	Exact    float64 `json:"exact"`         // share of the targets that greedy decoding gives exactly
}

// Model is a model directory.
type Model struct {
	Config     t5.Config       `json:"config"`
	Parameters int             `json:"parameters"`
	Digest     string          `json:"digest"` // checkpoint.Model's
	Files      map[string]File `json:"files"`
}

// File is one file of it.
type File struct {
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Files are the files of the model's directory.
var Files = []string{"config.json", "model.safetensors", "tokenizer_config.json"}

// Of reads the provenance of the model that the run in dir made.
func Of(dir string) (p Provenance, err error) {
	if p.Run, err = pretrain.ReadRecord(dir); err != nil {
		return p, err
	}
	p.Command = command(p.Run)
	if p.HeldOut, err = lastLook(filepath.Join(dir, "metrics.jsonl")); err != nil {
		return p, err
	}
	p.Model, err = Describe(os.DirFS(dir))
	return p, err
}

// Describe reads a model directory.
func Describe(fsys fs.FS) (Model, error) {
	m := Model{Files: map[string]File{}}
	for _, name := range Files {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return m, err
		}
		sum := sha256.Sum256(data)
		m.Files[name] = File{len(data), hex.EncodeToString(sum[:])}
	}
	c, err := checkpoint.OpenModelFS(fsys, "model")
	if err != nil {
		return m, err
	}
	defer c.Close() // read only
	if m.Config, err = t5.ParseConfig(c.Config()); err != nil {
		return m, err
	}
	if err := t5.Check(m.Config, c); err != nil {
		return m, err
	}
	digest, err := c.Digest()
	if err != nil {
		return m, err
	}
	params := m.Config.Parameters(t5.Tied(c))
	last := params[len(params)-1]
	m.Parameters, m.Digest = last.Offset+last.Size(), hex.EncodeToString(digest[:])
	return m, nil
}

// command is the command line of dpt pretrain with all flags that decide the result.
func command(r pretrain.Record) string {
	s, c := r.Settings, r.Settings.Model
	engine, rest, _ := strings.Cut(r.Numerics, "/")
	engine, _, _ = strings.Cut(engine, " ") // its version
	dtype, _, _ := strings.Cut(rest, "/")
	text := "dpt pretrain --out DIR"
	for _, f := range []struct {
		name  string
		value any
	}{
		{"engine", engine}, {"dtype", dtype}, {"seed", s.Seed}, {"steps", s.Steps}, {"batch-tokens", s.BatchTokens},
		{"micro-batches", s.Micro},
		{"lr", s.Optimizer.LR}, {"beta2", s.Optimizer.Beta2}, {"weight-decay", s.Optimizer.WeightDecay},
		{"clip", s.Clip}, {"warmup", s.Warmup}, {"decay", s.Decay},
		{"spans", s.Spans}, {"noise", s.Noise}, {"span-bytes", s.SpanBytes}, {"max-bytes", s.MaxBytes},
		{"d-model", c.DModel}, {"d-ff", c.DFF}, {"heads", c.NumHeads}, {"d-kv", c.DKV}, {"layers", c.NumLayers},
		{"decoder-layers", c.NumDecoderLayers},
	} {
		text += fmt.Sprintf(" --%s %v", f.name, f.value)
	}
	return text
}

// lastLook reads the last evaluation of a run's metrics. An evaluation that was repeated after a
// stop replaces the first one.
func lastLook(path string) (list []Look, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		var l Look
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", path, n, err)
		}
		switch {
		case l.Kind == "":
			continue // of training
		case len(list) > 0 && (list[0].Step != l.Step || list[0].Kind == l.Kind):
			list = nil
		}
		list = append(list, l)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: no evaluation, want one: run dpt pretrain with --eval-every", path)
	}
	return list, nil
}
