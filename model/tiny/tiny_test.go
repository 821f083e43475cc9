package tiny

import (
	"encoding/json"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dptune/dpt/dataset/tokenizer"
	"github.com/dptune/dpt/model/lab/pretrain"
	"github.com/dptune/dpt/model/t5"
	"github.com/dptune/dpt/model/tiny/internal/provenance"
)

// maxBytes is what the embedded model may add to the program.
const maxBytes = 6_000_000

// TestProvenance: provenance.json describes the embedded files, and a run like that of the package
// documentation.
func TestProvenance(t *testing.T) {
	data, err := os.ReadFile("provenance.json")
	if err != nil {
		t.Fatal(err)
	}
	var p provenance.Provenance
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		t.Fatal(err)
	}
	got, err := provenance.Describe(FS())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, p.Model) {
		t.Errorf("embedded is %+v,\nprovenance.json tells of %+v: go run ./model/tiny/internal/embed RUN makes both",
			got, p.Model)
	}
	if _, err := time.Parse(time.DateOnly, p.Date); err != nil {
		t.Error(err)
	}
	want := pretrain.DefaultSettings()
	was := p.Run.Settings
	// A run may change these on the way.
	want.Steps, want.Decay, want.Optimizer.LR = was.Steps, was.Decay, was.Optimizer.LR
	if !reflect.DeepEqual(was, want) {
		t.Errorf("the run had the settings %+v, want the default's but for steps, decay and rate, %+v", was, want)
	}
	if p.Run.Settings.Model.DModel != p.Model.Config.DModel || p.Run.Steps < 1 || p.Run.Steps > p.Run.Settings.Steps ||
		p.Run.Tokens < p.Run.Steps {
		t.Errorf("a run of %d steps of %d and %d tokens, d_model %d; the model's is %d",
			p.Run.Steps, p.Run.Settings.Steps, p.Run.Tokens, p.Run.Settings.Model.DModel, p.Model.Config.DModel)
	}
	if len(p.HeldOut) == 0 || p.HeldOut[len(p.HeldOut)-1].Kind != "all" || p.HeldOut[0].Step > p.Run.Steps {
		t.Errorf("held-out evaluations %+v, want those of one step of the run, all kinds together last", p.HeldOut)
	}
}

// TestShape: the model has the shape that the documentation gives, and at most maxBytes.
func TestShape(t *testing.T) {
	m, err := provenance.Describe(FS())
	if err != nil {
		t.Fatal(err)
	}
	want := t5.Config{ModelType: "t5",
		VocabSize:        384,
		DModel:           192,
		DKV:              32,
		DFF:              448,
		NumLayers:        4,
		NumDecoderLayers: 2,
		NumHeads:         6,
		RelativeBuckets:  32,
		RelativeDistance: 128,
		LayerNormEpsilon: 1e-6,
		GatedGELU:        true,
		EOSTokenIDs:      []int32{1}}
	if !reflect.DeepEqual(m.Config, want) || m.Parameters != 2_878_848 {
		t.Errorf("%d weights of %+v, want 2878848 of %+v", m.Parameters, m.Config, want)
	}
	entries, err := fs.ReadDir(FS(), ".")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, e := range entries {
		total += m.Files[e.Name()].Bytes
	}
	if len(entries) != len(m.Files) || total > maxBytes {
		t.Errorf("%d files of %d bytes, want %d of at most %d", len(entries), total, len(m.Files), maxBytes)
	}
	tok, err := tokenizer.OpenFS(FS(), Name)
	if err != nil || tok.VocabSize() != 384 {
		t.Errorf("tokenizer %v (%v), want one of 384 ids", tok, err)
	}
}
