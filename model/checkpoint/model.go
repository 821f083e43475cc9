package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Names of the files in a model directory, as Transformers writes them.
const (
	configFile  = "config.json"
	weightsFile = "model.safetensors"
	indexFile   = "model.safetensors.index.json"

	generationFile = "generation_config.json"

	torchFile      = "pytorch_model.bin"
	torchIndexFile = "pytorch_model.bin.index.json"
)

// maxJSON limits a model directory's JSON files, in bytes. The index of a
// model of 10,000 tensors is about 1 MB.
const maxJSON = 64 << 20

// Model is an open model directory: its configuration and its weights, from one
// file or several shards. Its methods may be called from several goroutines at
// once, except Close, which invalidates all data handed out.
type Model struct {
	name   string
	config []byte
	// generation is generation_config.json; nil if there is none
	generation []byte
	shards     map[string]*File // by file name
	tensors    map[string]*File // by tensor name
	digest     func() ([32]byte, error)
}

// source gives access to a model's files, by their names in the model directory.
type source struct {
	read func(file string) ([]byte, error) // a small file
	open func(file string) (*File, error)  // a file of tensors
	has  func(file string) bool
}

// OpenModel opens a model directory as Transformers' save_pretrained writes it:
// config.json, and the first of model.safetensors, the shards that
// model.safetensors.index.json names, pytorch_model.bin, and the shards that
// pytorch_model.bin.index.json names. Weights are mapped, not read.
func OpenModel(dir string) (*Model, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("open model %s: %w; want a directory with %s and %s",
			dir, bareError(err), configFile, weightsFile)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("open model %s: is a file, want a directory with %s and %s",
			dir, configFile, weightsFile)
	}
	fsys := os.DirFS(dir)
	return openModel(dir, source{
		read: func(file string) ([]byte, error) { return readSmall(fsys, file) },
		open: func(file string) (*File, error) { return Open(filepath.Join(dir, filepath.FromSlash(file))) },
		has:  func(file string) bool { return exists(fsys, file) },
	})
}

// OpenModelFS opens a model from the root of fsys, reading the weights into
// memory. name stands for it in errors and in Name.
func OpenModelFS(fsys fs.FS, name string) (*Model, error) {
	return openModel(name, source{
		read: func(file string) ([]byte, error) { return readSmall(fsys, file) },
		open: func(file string) (*File, error) {
			data, err := fs.ReadFile(fsys, file)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", file, bareError(err))
			}
			return parseWeights(file, data)
		},
		has: func(file string) bool { return exists(fsys, file) },
	})
}

// Reopen returns the model open once more, with another name. The two share the weights in memory
// and the digest; m must stay open for as long as the other one is used, and is not closed with it.
func (m *Model) Reopen(name string) *Model {
	return &Model{
		name:       name,
		config:     m.config,
		generation: m.generation,
		tensors:    maps.Clone(m.tensors),
		digest:     m.digest,
	}
}

func openModel(name string, src source) (*Model, error) {
	m := &Model{name: name, shards: make(map[string]*File), tensors: make(map[string]*File)}
	m.digest = sync.OnceValues(m.computeDigest)
	if err := m.load(src); err != nil {
		return nil, fmt.Errorf("open model %s: %w", name, errors.Join(err, m.Close()))
	}
	return m, nil
}

func (m *Model) load(src source) error {
	if !src.has(configFile) {
		return fmt.Errorf("%s is missing", configFile)
	}
	var err error
	if m.config, err = src.read(configFile); err != nil {
		return err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(m.config, &object); err != nil {
		return fmt.Errorf("%s: %w", configFile, err)
	}

	if src.has(generationFile) {
		if m.generation, err = src.read(generationFile); err != nil {
			return err
		}
	}

	// Weights in one file or in shards. As in Transformers, one file wins over an index, and
	// safetensors over pickles.
	for _, form := range []struct{ file, index string }{{weightsFile, indexFile}, {torchFile, torchIndexFile}} {
		switch {
		case src.has(form.file):
			return m.loadFile(src, form.file)
		case src.has(form.index):
			return m.loadIndex(src, form.index)
		}
	}

	// Neither: tell about weights of other frameworks and formats.
	for _, other := range []string{"tf_model.h5", "flax_model.msgpack"} {
		if src.has(other) {
			return fmt.Errorf("found %s, want %s or %s: save the model again with safe_serialization=True",
				other, weightsFile, indexFile)
		}
	}
	return fmt.Errorf("found none of %s, %s, %s and %s", weightsFile, indexFile, torchFile, torchIndexFile)
}

func (m *Model) loadFile(src source, file string) error {
	f, err := src.open(file)
	if err != nil {
		return err
	}
	m.shards[file] = f
	for _, name := range f.names {
		m.tensors[name] = f
	}
	if len(m.tensors) == 0 {
		return fmt.Errorf("%s holds no tensor", file)
	}
	return nil
}

func (m *Model) loadIndex(src source, index string) error {
	data, err := src.read(index)
	if err != nil {
		return err
	}
	weightMap, err := parseIndex(data)
	if err != nil {
		return fmt.Errorf("%s: %w", index, err)
	}
	return m.loadShards(src, index, weightMap)
}

func (m *Model) loadShards(src source, index string, weightMap map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(weightMap)) {
		shard := weightMap[name]
		f := m.shards[shard]
		if f == nil {
			if !src.has(shard) {
				return fmt.Errorf("shard %s is missing: %s says it holds tensor %s", shard, index, name)
			}
			var err error
			if f, err = src.open(shard); err != nil {
				return err
			}
			m.shards[shard] = f
		}
		if f.alias[name] {
			continue
		}
		if !f.Has(name) {
			return fmt.Errorf("shard %s lacks tensor %s, which %s says it holds", shard, name, index)
		}
		m.tensors[name] = f
	}
	return nil
}

// parseIndex reads {"metadata": …, "weight_map": {tensor: shard}} and refuses
// shard names that lead out of the model directory.
func parseIndex(data []byte) (map[string]string, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	var weightMap map[string]string
	err := eachField(dec, func(key string) error {
		if key != "weight_map" {
			var skip json.RawMessage
			return dec.Decode(&skip)
		}
		weightMap = make(map[string]string)
		return eachField(dec, func(name string) error {
			tok, err := dec.Token()
			if err != nil {
				return err
			}
			shard, ok := tok.(string)
			if !ok {
				return fmt.Errorf("weight_map: shard of tensor %s is not a string", name)
			}
			if !fs.ValidPath(shard) || shard == "." || strings.ContainsAny(shard, `\:`) {
				return fmt.Errorf("weight_map: shard %q of tensor %s is not the name of a file in the model directory",
					shard, name)
			}
			weightMap[name] = shard
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, errors.New("text after the closing brace")
	}
	if len(weightMap) == 0 {
		return nil, errors.New("weight_map is missing or empty")
	}
	return weightMap, nil
}

// Name returns the directory, or the name given to OpenModelFS.
func (m *Model) Name() string { return m.name }

// Config returns the bytes of config.json.
func (m *Model) Config() []byte { return bytes.Clone(m.config) }

// Generation returns the bytes of generation_config.json, nil if there is none.
func (m *Model) Generation() []byte { return bytes.Clone(m.generation) }

// Names returns the names of all tensors, sorted.
func (m *Model) Names() []string { return slices.Sorted(maps.Keys(m.tensors)) }

// Has reports whether the model has a tensor of that name.
func (m *Model) Has(name string) bool { return m.tensors[name] != nil }

// Float32 returns the tensor of that name in row-major order; see
// Tensor.Float32 for conversions and ownership. The tensor's shape must be
// shape: a checkpoint that disagrees with its config.json is refused here.
func (m *Model) Float32(name string, shape ...int) ([]float32, error) {
	t, err := m.tensor(name, shape)
	if err != nil {
		return nil, err
	}
	v, err := t.Float32()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", m.tensors[name].name, err)
	}
	return v, nil
}

// Check returns the error of Float32, whose elements it neither reads nor converts.
func (m *Model) Check(name string, shape ...int) error {
	t, err := m.tensor(name, shape)
	if err != nil {
		return err
	}
	if err := t.check(); err != nil {
		return fmt.Errorf("read %s: %w", m.tensors[name].name, err)
	}
	return nil
}

func (m *Model) tensor(name string, shape []int) (Tensor, error) {
	f := m.tensors[name]
	if f == nil {
		return Tensor{}, fmt.Errorf("read model %s: tensor %s is missing, want shape %v", m.name, name, shape)
	}
	t, err := f.Tensor(name)
	if err != nil {
		return Tensor{}, err
	}
	if !slices.Equal(t.Shape, shape) {
		return Tensor{}, fmt.Errorf("read %s: tensor %s: shape %v, want %v", f.name, name, t.Shape, shape)
	}
	return t, nil
}

// Close releases the weights. Slices from Float32 must not be used after.
func (m *Model) Close() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(m.shards)) {
		errs = append(errs, m.shards[name].Close())
	}
	m.shards, m.tensors = nil, nil
	return errors.Join(errs...)
}

func exists(fsys fs.FS, file string) bool {
	st, err := fs.Stat(fsys, file)
	return err == nil && !st.IsDir()
}

// readSmall reads a JSON file, with a limit that keeps a wrong file from
// filling the memory.
func readSmall(fsys fs.FS, file string) ([]byte, error) {
	st, err := fs.Stat(fsys, file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, bareError(err))
	}
	if st.Size() > maxJSON {
		return nil, fmt.Errorf("read %s: %d bytes, want at most %d", file, st.Size(), maxJSON)
	}
	data, err := fs.ReadFile(fsys, file)
	if err == nil {
		err = checkLFS(data)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, bareError(err))
	}
	return data, nil
}
