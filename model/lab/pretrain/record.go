package pretrain

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/dptune/dpt/model/checkpoint"
)

// Record describes how a run made its model, as the run's directory holds it.
type Record struct {
	Settings Settings `json:"settings"`
	Corpus   string   `json:"corpus"`   // Corpus.Name
	Numerics string   `json:"numerics"` // Engine.Numerics, which decided the bits beside the settings
	Steps    int64    `json:"steps"`    // taken
	Tokens   int64    `json:"tokens"`   // of sources and targets
}

// ReadRecord reads the record of the run in dir. It fails if the weights of the model there are not
// those of the run's state.
func ReadRecord(dir string) (Record, error) {
	path := filepath.Join(dir, stateFile)
	f, err := checkpoint.Open(path)
	if err != nil {
		return Record{}, err
	}
	defer f.Close() // read only
	s, id, err := parse(f)
	if err != nil {
		return Record{}, fmt.Errorf("read %s: %w", path, err)
	}
	if err := s.weights(f, size(id.Settings)); err != nil {
		return Record{}, fmt.Errorf("read %s: %w", path, err)
	}
	m, err := checkpoint.OpenModel(dir)
	if err != nil {
		return Record{}, err
	}
	defer m.Close() // read only
	for _, p := range id.Settings.Model.Parameters(id.Settings.Tied) {
		got, err := m.Float32(p.Name, p.Shape...)
		if err != nil {
			return Record{}, err
		}
		trained := s.Params[p.Offset : p.Offset+p.Size()]
		rounded, err := checkpoint.BF16(p.Name, p.Shape, trained).Float32()
		if err != nil {
			return Record{}, err
		}
		if !slices.Equal(got, trained) && !slices.Equal(got, rounded) {
			return Record{}, fmt.Errorf("model %s: %s is not that of %s: want both of one step", dir, p.Name, stateFile)
		}
	}
	return Record{Settings: id.Settings, Corpus: id.Corpus, Numerics: id.Numerics, Steps: s.Step, Tokens: s.tokens}, nil
}
