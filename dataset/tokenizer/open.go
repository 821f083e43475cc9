package tokenizer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	modelFile  = "spiece.model"
	jsonFile   = "tokenizer.json"
	configFile = "tokenizer_config.json"
	addedFile  = "added_tokens.json"
)

// maxFileBytes bounds what is read into memory. The largest published unigram
// vocabularies take about 20 MB.
const maxFileBytes = 256 << 20

// Open reads the tokenizer of a model directory as Transformers writes it. It
// takes the first of: spiece.model; tokenizer.json; the byte level, where
// tokenizer_config.json names ByT5Tokenizer. tokenizer_config.json, if there is
// one, also gives the number of sentinels.
//
// Added tokens count wherever they are kept: in tokenizer_config.json, in
// tokenizer.json, also beside a spiece.model, and, where neither has any, in
// added_tokens.json. Files that give one id to two tokens are refused.
func Open(dir string) (Tokenizer, error) {
	return OpenFS(os.DirFS(dir), dir)
}

// OpenPath is Open for a directory and OpenFile for a file.
func OpenPath(path string) (Tokenizer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open tokenizer: %w", err)
	}
	if info.IsDir() {
		return Open(path)
	}
	return OpenFile(path)
}

// OpenFS is Open on a file system, which errors call name.
func OpenFS(fsys fs.FS, name string) (Tokenizer, error) {
	t, err := openFS(fsys)
	if err != nil {
		return nil, fmt.Errorf("open tokenizer %s: %w", name, err)
	}
	return t, nil
}

func openFS(fsys fs.FS) (Tokenizer, error) {
	cfg := &config{}
	haveConfig := true
	data, err := readFile(fsys, configFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		haveConfig = false
	case err != nil:
		return nil, err
	default:
		if cfg, err = parseConfig(data); err != nil {
			return nil, err
		}
	}
	if err := cfg.readAdded(fsys); err != nil {
		return nil, err
	}
	data, err = readFile(fsys, modelFile)
	if err == nil {
		return openModel(data, cfg)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	data, err = readFile(fsys, jsonFile)
	if err == nil {
		return openJSON(data, cfg)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if cfg.Class == byT5Class {
		return cfg.byteLevel()
	}
	if !haveConfig {
		return nil, fmt.Errorf("found none of %s, %s and %s", modelFile, jsonFile, configFile)
	}
	return nil, fmt.Errorf("found neither %s nor %s, and %s has tokenizer_class %q, which needs one; only %s does not",
		modelFile, jsonFile, configFile, cfg.Class, byT5Class)
}

// OpenFile reads a single spiece.model or tokenizer.json, told apart by their
// content. A spiece.model gets T5's 100 sentinels.
func OpenFile(path string) (Tokenizer, error) {
	dir, file := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	data, err := readFile(os.DirFS(dir), file)
	if err != nil {
		return nil, fmt.Errorf("open tokenizer %s: %w", path, err)
	}
	open := openModel
	if bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		open = openJSON
	}
	t, err := open(data, &config{})
	if err != nil {
		return nil, fmt.Errorf("open tokenizer %s: %w", path, err)
	}
	return t, nil
}

func openModel(data []byte, cfg *config) (Tokenizer, error) {
	s, err := parseModel(data)
	if err != nil {
		return nil, err
	}
	if err := cfg.addTokens(s); err != nil {
		return nil, fmt.Errorf("%s: %w", modelFile, err)
	}
	if err := s.addMissing(cfg.elsewhere); err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.elsewhereFile, err)
	}
	s.cleanUp = cfg.CleanUp
	t, err := newSentencePiece(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", modelFile, err)
	}
	return t, nil
}

func openJSON(data []byte, cfg *config) (Tokenizer, error) {
	s, err := parseJSON(data)
	if err != nil {
		return nil, err
	}
	if err := s.addMissing(cfg.tokens); err != nil {
		return nil, fmt.Errorf("%s: %w", configFile, err)
	}
	s.cleanUp = cfg.CleanUp
	t, err := newSentencePiece(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", jsonFile, err)
	}
	return t, nil
}

func readFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if bytes.HasPrefix(data, []byte("version https://git-lfs.github.com/spec/")) {
		return nil, fmt.Errorf("%s is a Git LFS pointer, not the file itself: fetch it with git lfs pull", name)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("%s is larger than %d MiB, which no tokenizer is", name, maxFileBytes>>20)
	}
	return data, nil
}
