package checkpoint

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const lfsPointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 242013376\n"

const tinyConfig = `{"model_type": "t5", "d_model": 2, "num_layers": 1, "vocab_size": 3}`

// file returns a safetensors file with the given tensors, each 2 wide.
func file(t *testing.T, tensors map[string][]float32) []byte {
	t.Helper()
	var list []Tensor
	for name, v := range tensors {
		list = append(list, F32(name, []int{len(v) / 2, 2}, v))
	}
	data, err := encode(list, map[string]string{"format": "pt"})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var (
	one = map[string][]float32{"a": {1, 2}, "shared.weight": {3, 4, 5, 6}}
	two = map[string][]float32{"b": {7, 8}}
	all = map[string][]float32{"a": {1, 2}, "shared.weight": {3, 4, 5, 6}, "b": {7, 8}}
)

const index = `{"metadata": {"total_size": 32}, "weight_map": {
	"a": "model-00001-of-00002.safetensors",
	"shared.weight": "model-00001-of-00002.safetensors",
	"b": "model-00002-of-00002.safetensors"
}}`

// write puts files into a new directory.
func write(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func toFS(files map[string][]byte) fs.FS {
	out := fstest.MapFS{}
	for name, data := range files {
		out[name] = &fstest.MapFile{Data: data}
	}
	return out
}

func whole(t *testing.T) map[string][]byte {
	return map[string][]byte{"config.json": []byte(tinyConfig), "model.safetensors": file(t, all)}
}

func sharded(t *testing.T) map[string][]byte {
	return map[string][]byte{
		"config.json":                      []byte(tinyConfig),
		"model.safetensors.index.json":     []byte(index),
		"model-00001-of-00002.safetensors": file(t, one),
		"model-00002-of-00002.safetensors": file(t, two),
	}
}

func digest(t *testing.T, m *Model, err error) [32]byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestModel(t *testing.T) {
	for name, files := range map[string]map[string][]byte{"one file": whole(t), "shards": sharded(t)} {
		dir := write(t, files)
		onDisk, err := OpenModel(dir)
		if err != nil {
			t.Fatal(err)
		}
		inMemory, err := OpenModelFS(toFS(files), "memory")
		if err != nil {
			t.Fatal(err)
		}
		if onDisk.Name() != dir || inMemory.Name() != "memory" {
			t.Errorf("%s: names %q and %q", name, onDisk.Name(), inMemory.Name())
		}
		for _, m := range []*Model{onDisk, inMemory} {
			if string(m.Config()) != tinyConfig {
				t.Errorf("%s: config %s", name, m.Config())
			}
			if got := m.Names(); !slices.Equal(got, []string{"a", "b", "shared.weight"}) {
				t.Errorf("%s: names %q", name, got)
			}
			for tensor, want := range all {
				got, err := m.Float32(tensor, len(want)/2, 2)
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("%s: %s = %v, want %v (%v)", name, tensor, got, want, err)
				}
			}
			if !m.Has("a") || m.Has("c") {
				t.Errorf("%s: Has is wrong", name)
			}
			if _, err := m.Float32("c", 1, 2); err == nil ||
				err.Error() != "read model "+m.Name()+": tensor c is missing, want shape [1 2]" {
				t.Errorf("%s: error %v", name, err)
			}
			if _, err := m.Float32("b", 2, 1); err == nil ||
				!strings.HasSuffix(err.Error(), ".safetensors: tensor b: shape [1 2], want [2 1]") {
				t.Errorf("%s: error %v", name, err)
			}
			for _, tensor := range []string{"a", "b", "c"} {
				for _, shape := range [][]int{{1, 2}, {2, 1}} {
					_, want := m.Float32(tensor, shape...)
					if got := m.Check(tensor, shape...); fmt.Sprint(got) != fmt.Sprint(want) {
						t.Errorf("%s: Check of %s %v fails with %v, Float32 with %v", name, tensor, shape, got, want)
					}
				}
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestDigest(t *testing.T) {
	open := func(files map[string][]byte) [32]byte {
		m, err := OpenModelFS(toFS(files), "memory")
		return digest(t, m, err)
	}
	want := open(whole(t))
	if got := open(sharded(t)); got != want {
		t.Error("the digest depends on the sharding")
	}
	config := func(s string) map[string][]byte {
		files := whole(t)
		files["config.json"] = []byte(s)
		return files
	}
	for _, same := range []string{
		`{"vocab_size": 3.0, "num_layers":1,"d_model":2,"model_type":"t5"}`,
		`{"model_type": "t5", "d_model": 2, "num_layers": 1, "vocab_size": 3,
			"dropout_rate": 0.1, "transformers_version": "5.0", "task_specific_params": {}}`,
		`{"model_type": "t5", "d_model": 2, "num_layers": 1, "num_decoder_layers": 1, "vocab_size": 3,
			"layer_norm_epsilon": 0.000001, "d_kv": 64, "tie_word_embeddings": true, "scale_decoder_outputs": true,
			"pad_token_id": null}`,
	} {
		if open(config(same)) != want {
			t.Errorf("the digest differs for %s", same)
		}
	}
	for _, other := range []string{
		`{"model_type": "t5", "d_model": 2, "num_layers": 2, "vocab_size": 3}`,
		`{"model_type": "mt5", "d_model": 2, "num_layers": 1, "vocab_size": 3}`,
		`{"model_type": "t5", "d_model": 2, "num_layers": 1, "num_decoder_layers": 2, "vocab_size": 3}`,
		`{"model_type": "t5", "d_model": 2, "num_layers": 1, "vocab_size": 3, "feed_forward_proj": "gated-gelu"}`,
		`{"model_type": "t5", "d_model": 2, "num_layers": 1, "vocab_size": 3, "tie_word_embeddings": false}`,
		`{"model_type": "t5", "d_model": 2, "num_layers": 1, "vocab_size": 3, "scale_decoder_outputs": false}`,
	} {
		if open(config(other)) == want {
			t.Errorf("the digest is the same for %s", other)
		}
	}
	for _, change := range []func(map[string][]float32){
		func(m map[string][]float32) { m["b"] = []float32{7, 9} },
		func(m map[string][]float32) { m["c"] = m["b"]; delete(m, "b") },
		func(m map[string][]float32) { delete(m, "b") },
		func(m map[string][]float32) { m["a"], m["b"] = m["b"], m["a"] },
	} {
		changed := maps.Clone(all)
		change(changed)
		files := whole(t)
		files["model.safetensors"] = file(t, changed)
		if open(files) == want {
			t.Errorf("the digest is the same with %v", changed)
		}
	}
}

func TestOpenModelRefuses(t *testing.T) {
	with := func(files map[string][]byte, name, data string) map[string][]byte {
		files[name] = []byte(data)
		return files
	}
	without := func(files map[string][]byte, name string) map[string][]byte {
		delete(files, name)
		return files
	}
	for _, c := range []struct {
		name  string
		files map[string][]byte
		want  string
	}{
		{"empty", nil, "config.json is missing"},
		{"no weights", map[string][]byte{"config.json": []byte(tinyConfig)},
			"found none of model.safetensors, model.safetensors.index.json, pytorch_model.bin and " +
				"pytorch_model.bin.index.json"},
		{"pickle", map[string][]byte{"config.json": []byte(tinyConfig), "pytorch_model.bin": {1}},
			"pytorch_model.bin: is not what torch.save writes, want its zip archive"},
		{"other framework", map[string][]byte{"config.json": []byte(tinyConfig), "tf_model.h5": {1}},
			"found tf_model.h5, want model.safetensors or model.safetensors.index.json"},
		{"weights not fetched", with(whole(t), "model.safetensors", lfsPointer),
			"model.safetensors: is a Git LFS pointer, not the file itself: fetch it with git lfs pull"},
		{"shard not fetched", with(sharded(t), "model-00002-of-00002.safetensors", lfsPointer),
			"model-00002-of-00002.safetensors: is a Git LFS pointer"},
		{"pickle not fetched",
			map[string][]byte{"config.json": []byte(tinyConfig), "pytorch_model.bin": []byte(lfsPointer)},
			"pytorch_model.bin: is a Git LFS pointer"},
		{"config not fetched", with(whole(t), "config.json", lfsPointer), "config.json: is a Git LFS pointer"},
		{"config not JSON", with(whole(t), "config.json", "{"), "config.json: unexpected end of JSON input"},
		{"config an array", with(whole(t), "config.json", "[]"), "config.json: json: cannot unmarshal array"},
		{"truncated weights", with(whole(t), "model.safetensors", string(file(t, all)[:100])), "the file is truncated"},
		{"no tensors", with(whole(t), "model.safetensors", string(file(t, nil))), "model.safetensors holds no tensor"},
		{"missing shard", without(sharded(t), "model-00002-of-00002.safetensors"),
			"shard model-00002-of-00002.safetensors is missing: model.safetensors.index.json says it holds tensor b"},
		{"missing tensor", with(sharded(t), "model-00002-of-00002.safetensors", string(file(t, one))),
			"shard model-00002-of-00002.safetensors lacks tensor b, which model.safetensors.index.json says it holds"},
		{"truncated shard", with(sharded(t), "model-00002-of-00002.safetensors", "123"),
			"model-00002-of-00002.safetensors: file is 3 bytes"},
		{"index not JSON", with(sharded(t), "model.safetensors.index.json", "{"),
			"model.safetensors.index.json: JSON ends in the middle of a value"},
		{"no weight map", with(sharded(t), "model.safetensors.index.json", "{}"), "weight_map is missing or empty"},
		{"shard not a string", with(sharded(t), "model.safetensors.index.json", `{"weight_map":{"a":1}}`),
			"shard of tensor a is not a string"},
		{"tensor twice", with(sharded(t), "model.safetensors.index.json", `{"weight_map":{"a":"x","a":"y"}}`),
			`"a" appears twice`},
		{"parent", with(sharded(t), "model.safetensors.index.json", `{"weight_map":{"a":"../x.safetensors"}}`),
			`shard "../x.safetensors" of tensor a is not the name of a file in the model directory`},
		{"absolute", with(sharded(t), "model.safetensors.index.json", `{"weight_map":{"a":"/etc/passwd"}}`),
			`shard "/etc/passwd" of tensor a is not`},
		{"inner parent", with(sharded(t), "model.safetensors.index.json", `{"weight_map":{"a":"x/../../y"}}`),
			`of tensor a is not the name`},
		{"backslash", with(sharded(t), "model.safetensors.index.json", `{"weight_map":{"a":"..\\x"}}`),
			`of tensor a is not the name`},
		{"drive", with(sharded(t), "model.safetensors.index.json", `{"weight_map":{"a":"C:x"}}`),
			`of tensor a is not the name`},
		{"empty name", with(sharded(t), "model.safetensors.index.json", `{"weight_map":{"a":""}}`),
			`of tensor a is not the name`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := write(t, c.files)
			if _, err := OpenModel(dir); err == nil || !strings.HasPrefix(err.Error(), "open model "+dir+": ") ||
				!strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if _, err := OpenModelFS(toFS(c.files), "memory"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("in memory: error %v, want one with %q", err, c.want)
			}
		})
	}
	missing := filepath.Join(t.TempDir(), "none")
	if _, err := OpenModel(missing); err == nil ||
		err.Error() != "open model "+missing+
			": no such file or directory; want a directory with config.json and model.safetensors" {
		t.Errorf("missing directory: error %v", err)
	}
	dir := write(t, whole(t))
	if _, err := OpenModel(filepath.Join(dir, "config.json")); err == nil ||
		!strings.Contains(err.Error(), "is a file, want a directory") {
		t.Errorf("a file: error %v", err)
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(index))
	f.Add([]byte(`{"weight_map":{"a":"../x"}}`))
	f.Add([]byte(`{"weight_map":{"a":"b"}}{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseIndex(data)
		if err != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("accepted %q, which is not JSON", data)
		}
		for tensor, shard := range m {
			if !filepath.IsLocal(filepath.FromSlash(shard)) {
				t.Fatalf("shard %q of %s leads out of the directory", shard, tensor)
			}
		}
	})
}

// TestReopen: a reopened model has the first one's weights and digest, and closing it leaves the
// first one open.
func TestReopen(t *testing.T) {
	m, err := OpenModelFS(toFS(whole(t)), "first")
	if err != nil {
		t.Fatal(err)
	}
	other := m.Reopen("other")
	want, err := m.Digest()
	if got, err2 := other.Digest(); err != nil || err2 != nil || got != want || other.Name() != "other" ||
		!other.Has("a") || string(other.Config()) != tinyConfig {
		t.Errorf("%s has digest %x, want %x (%v, %v)", other.Name(), got, want, err, err2)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	if v, err := m.Float32("a", 1, 2); err != nil || v[1] != 2 || other.Has("a") {
		t.Errorf("after the other one is closed: %v, %v", v, err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
