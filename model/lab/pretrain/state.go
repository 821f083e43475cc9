package pretrain

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/t5"
)

// stateFile holds the state with which a run continues, in its directory.
const stateFile = "state.safetensors"

// state is a run between two steps.
type state struct {
	optim.State
	at     uint64 // position in the stream of examples
	tokens int64  // source and target tokens so far
}

// identity identifies the run that a state file belongs to.
type identity struct {
	Settings Settings
	Corpus   string
	Numerics string // Engine.Numerics, which decides the bits beside the settings
}

// save writes s, of the run id, into dir.
func (s *state) save(dir string, id identity) error {
	data, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("encode settings: %w", err)
	}
	n := []int{len(s.Params)}
	return checkpoint.Write(filepath.Join(dir, stateFile),
		[]checkpoint.Tensor{
			checkpoint.F32("params", n, s.Params), checkpoint.F32("m", n, s.M), checkpoint.F32("v", n, s.V),
		},
		map[string]string{
			"run":    string(data),
			"step":   strconv.FormatInt(s.Step, 10),
			"at":     strconv.FormatUint(s.at, 10),
			"tokens": strconv.FormatInt(s.tokens, 10),
		})
}

// load reads the state in dir and refuses one of another run than id. It returns nil if there is
// none.
func load(dir string, id identity) (*state, error) {
	path := filepath.Join(dir, stateFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	f, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	s, err := read(f, id)
	if err != nil {
		return nil, fmt.Errorf("resume from %s: %w", path, err)
	}
	return s, nil
}

func read(f *checkpoint.File, id identity) (*state, error) {
	s, was, err := parse(f)
	if err != nil {
		return nil, err
	}
	if was.Corpus != id.Corpus || was.Numerics != id.Numerics {
		return nil, fmt.Errorf("the run was started with corpus %s on %s, want the same, not %s on %s",
			was.Corpus, was.Numerics, id.Corpus, id.Numerics)
	}
	if err := was.Settings.resumable(id.Settings, s.Step); err != nil {
		return nil, err
	}
	return s, s.weights(f, size(id.Settings))
}

// parse reads which run a state file belongs to and how far that is.
func parse(f *checkpoint.File) (s *state, was identity, err error) {
	meta := f.Metadata()
	if err := json.Unmarshal([]byte(meta["run"]), &was); err != nil {
		return nil, was, fmt.Errorf("its settings: %w", err)
	}
	s = &state{}
	var bad [3]error
	s.Step, bad[0] = strconv.ParseInt(meta["step"], 10, 64)
	s.at, bad[1] = strconv.ParseUint(meta["at"], 10, 64)
	s.tokens, bad[2] = strconv.ParseInt(meta["tokens"], 10, 64)
	if err := errors.Join(bad[:]...); err != nil {
		return nil, was, fmt.Errorf("where it stands: %w", err)
	}
	return s, was, nil
}

// weights reads the n weights and their moments.
func (s *state) weights(f *checkpoint.File, n int) error {
	for _, part := range []struct {
		tensor string
		to     *[]float32
	}{{"params", &s.Params}, {"m", &s.M}, {"v", &s.V}} {
		t, err := f.Tensor(part.tensor)
		if err != nil {
			return err
		}
		v, err := t.Float32()
		if err != nil {
			return err
		}
		if len(v) != n {
			return fmt.Errorf("tensor %s: %d numbers, want %d, the model's weights", part.tensor, len(v), n)
		}
		*part.to = append(make([]float32, 0, n), v...)
	}
	return nil
}

// size is the number of weights.
func size(s Settings) int {
	params := s.Model.Parameters(s.Tied)
	last := params[len(params)-1]
	return last.Offset + last.Size()
}

// byteLevelConfig is a tokenizer_config.json for a byte-level vocabulary of vocab ids.
func byteLevelConfig(vocab int) ([]byte, error) {
	data, err := json.MarshalIndent(struct {
		EOS      string `json:"eos_token"`
		ExtraIDs int    `json:"extra_ids"`
		Pad      string `json:"pad_token"`
		Class    string `json:"tokenizer_class"`
		Unk      string `json:"unk_token"`
	}{"</s>", vocab - firstSentinel, "<pad>", "ByT5Tokenizer", "<unk>"}, "", "  ")
	return append(data, '\n'), err
}

// writeModel writes the weights as a model directory that Transformers loads, in float32 or, with
// bf16, in bfloat16.
func writeModel(dir string, s Settings, weights []float32, bf16 bool) error {
	dtype, tensor := "float32", checkpoint.F32
	if bf16 {
		dtype, tensor = "bfloat16", checkpoint.BF16
	}
	config, err := s.Model.JSON(s.Tied, dtype)
	if err != nil {
		return fmt.Errorf("encode config: %w", err)
	}
	tokenizer, err := byteLevelConfig(s.Model.VocabSize)
	if err != nil {
		return fmt.Errorf("encode tokenizer config: %w", err)
	}
	return checkpoint.WriteModel(dir, config, tensors(s.Model.Parameters(s.Tied), weights, tensor),
		map[string][]byte{"tokenizer_config.json": tokenizer})
}

func tensors(
	params []t5.Parameter,
	weights []float32,
	tensor func(string, []int, []float32) checkpoint.Tensor,
) []checkpoint.Tensor {
	var list []checkpoint.Tensor
	for _, p := range params {
		list = append(list, tensor(p.Name, p.Shape, weights[p.Offset:p.Offset+p.Size()]))
	}
	return list
}
