package checkpoint

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// torchDir holds files that PyTorch and PEFT wrote: see model/parity/README.md.
var torchDir = filepath.Join("..", "parity", "testdata", "torch")

// TestTorchFile: a state dictionary of torch.save has the tensors that safetensors has, whatever
// their strides are, and of several names of a tensor one.
func TestTorchFile(t *testing.T) {
	want, err := Open(filepath.Join(torchDir, "state.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	for _, name := range []string{"state.bin", "protocol4.bin"} {
		got, err := Open(filepath.Join(torchDir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		if !slices.Equal(got.Names(), want.Names()) {
			t.Errorf("%s: tensors %q, want %q", name, got.Names(), want.Names())
		}
		for _, tensor := range want.Names() {
			w, err := want.Tensor(tensor)
			if err != nil {
				t.Fatal(err)
			}
			g, err := got.Tensor(tensor)
			if err != nil || g.DType != w.DType || !slices.Equal(g.Shape, w.Shape) || !bytes.Equal(g.Data, w.Data) {
				t.Errorf("%s: tensor %s is %+v (%v), want %+v", name, tensor, g, err, w)
			}
		}
	}
}

// TestTorchModel: a model directory's pickle and its shards are the model that safetensors are,
// with the same digest.
func TestTorchModel(t *testing.T) {
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(torchDir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	config := []byte(tinyConfig)
	want, err := OpenModelFS(toFS(map[string][]byte{
		"config.json": config, "model.safetensors": read("state.safetensors"),
	}), "memory")
	sum := digest(t, want, err)
	index := `{"weight_map": {`
	for _, name := range append(want.Names(), "lm_head.weight") {
		index += `"` + name + `": "pytorch_model-00001-of-00001.bin", `
	}
	index = strings.TrimSuffix(index, ", ") + "}}"
	for form, files := range map[string]map[string][]byte{
		"one file": {"pytorch_model.bin": read("state.bin")},
		"shards": {
			"pytorch_model.bin.index.json":     []byte(index),
			"pytorch_model-00001-of-00001.bin": read("state.bin"),
		},
	} {
		files["config.json"] = config
		inMemory, err := OpenModelFS(toFS(files), "memory")
		if digest(t, inMemory, err) != sum {
			t.Errorf("%s: the digest is not that of model.safetensors", form)
		}
		onDisk, err := OpenModel(write(t, files))
		if digest(t, onDisk, err) != sum {
			t.Errorf("%s: the digest on disk is not that of model.safetensors", form)
		}
		if onDisk.Has("lm_head.weight") {
			t.Errorf("%s: the tied output projection is a tensor of its own", form)
		}
		if err := onDisk.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestTorchFileRefuses(t *testing.T) {
	for name, want := range map[string]string{
		"legacy.bin": "is a pickle of before PyTorch 1.6",
		"evil.bin":   `the pickle asks for "posix.system"; only tensors and dictionaries of them are read`,
		"nested.bin": `"state_dict" is a dictionary, want a tensor`,
	} {
		_, err := Open(filepath.Join(torchDir, name))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v, want one with %q", name, err, want)
		}
	}

	// Archives that PyTorch would not write.
	storage := "X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
	tensor := func(numel, offset, size, stride string) string {
		return "\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((" + storage + numel + "tQ" +
			offset + size + "\x85" + stride + "\x85\x89)tRs."
	}
	good := tensor("K\x02", "K\x00", "K\x02", "K\x01")
	eight := strings.Repeat("\x00", 8)
	for _, c := range []struct {
		name, pickle, data string
		method             uint16
		want               string
	}{
		{"good", good, eight, zip.Store, ""},
		{"compressed", good, eight, zip.Deflate, "is compressed, want it stored"},
		{"short storage", good, "1234", zip.Store, "is 4 bytes, want 2 elements of 4: the file is truncated"},
		{"beyond", tensor("K\x02", "K\x01", "K\x02", "K\x01"), eight, zip.Store, "leaves its storage of 2"},
		{"far stride", tensor("K\x02", "K\x00", "K\x02", "J\xff\xff\xff\x7f"), eight, zip.Store, "leaves its storage"},
		{"repeated", tensor("K\x02", "K\x00", "J\xff\xff\xff\x7f", "K\x00"), eight, zip.Store, "repeats elements"},
		{"negative", tensor("K\x02", "K\x00", "J\xff\xff\xff\xff", "K\x01"), eight, zip.Store, "other things than"},
		{"reduce a string", "\x80\x02X\x01\x00\x00\x00a)R.", eight, zip.Store, `calls "a" with a tuple of 0`},
		{"stack global", "\x80\x04\x8c\x02os\x8c\x06system\x93.", eight, zip.Store, `the pickle asks for "os.system"`},
		{"instance", "\x80\x02(ios\nsystem\n.", eight, zip.Store, "instruction 0x69, want one of those"},
		{"new object", "\x80\x02ccollections\nOrderedDict\n)\x81.", eight, zip.Store, "instruction 0x81"},
		{"state of a tensor", good[:len(good)-2] + "}b.", eight, zip.Store, "sets the state of a tensor"},
		{"no end", "\x80\x02}", eight, zip.Store, "pickle ends in the middle"},
		{"empty stack", "\x80\x02.", eight, zip.Store, "takes 1 values from a stack of 0"},
		{"a list", "\x80\x02].", eight, zip.Store, "holds a list, want a dictionary of tensors"},
		{"python 2", "\x80\x01}.", eight, zip.Store, "protocol 1, want 2 to 5"},
	} {
		_, err := parseWeights(c.name, archive(t, c.pickle, c.data, c.method))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

// archive returns a zip archive of a pickle and a storage named 0.
func archive(t testing.TB, pickle, data string, method uint16) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range []struct {
		name, data string
		method     uint16
	}{{"m/data.pkl", pickle, zip.Store}, {"m/data/0", data, method}} {
		out, err := w.CreateHeader(&zip.FileHeader{Name: f.name, Method: f.method})
		if err == nil {
			_, err = out.Write([]byte(f.data))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// FuzzTorchFile: any file gives an error or tensors that can be read.
func FuzzTorchFile(f *testing.F) {
	for _, name := range []string{"state.bin", "protocol4.bin", "evil.bin", "nested.bin", "legacy.bin"} {
		data, err := os.ReadFile(filepath.Join(torchDir, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := parseWeights("fuzz", append(slices.Clone(zipMagic), data[min(len(data), 4):]...))
		if err != nil {
			return
		}
		readAll(t, file, len(data)+4)
	})
}

// FuzzPickle: any pickle in a whole archive gives an error or tensors that can be read.
func FuzzPickle(f *testing.F) {
	for _, name := range []string{"state.bin", "protocol4.bin", "evil.bin", "nested.bin"} {
		r, err := zip.OpenReader(filepath.Join(torchDir, name))
		if err != nil {
			f.Fatal(err)
		}
		for _, z := range r.File {
			if strings.HasSuffix(z.Name, "data.pkl") {
				data, err := readZip(z, maxPickle)
				if err != nil {
					f.Fatal(err)
				}
				f.Add(data)
			}
		}
		r.Close()
	}
	f.Fuzz(func(t *testing.T, pickle []byte) {
		data := archive(t, string(pickle), strings.Repeat("01234567", 30), zip.Store)
		if file, err := parseWeights("fuzz", data); err == nil {
			readAll(t, file, len(data))
		}
	})
}

// readAll reads all tensors, none of which may be larger than the file.
func readAll(t *testing.T, f *File, size int) {
	for _, name := range f.Names() {
		tensor, err := f.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := byteSize(tensor.DType, tensor.Shape)
		if err != nil || uint64(len(tensor.Data)) != want || len(tensor.Data) > size {
			t.Fatalf("tensor %s %v has %d bytes, want %d (%v)", name, tensor.Shape, len(tensor.Data), want, err)
		}
	}
}

// TestTorchAdapter reads an adapter as PEFT wrote it before safetensors: by its directory or its
// file, of its rows those of the encoder. Another method's adapter is called that.
func TestTorchAdapter(t *testing.T) {
	dir := filepath.Join(torchDir, "two-submodules")
	for _, path := range []string{dir, filepath.Join(dir, "adapter_model.bin")} {
		p, err := ReadPrompt(path)
		if err != nil || p.Length != 3 || p.Dim != 8 {
			t.Errorf("%s: prompt of %d×%d (%v), want 3×8", path, p.Length, p.Dim, err)
		}
	}
	lora := filepath.Join(torchDir, "lora")
	for _, path := range []string{lora, filepath.Join(lora, "adapter_model.bin")} {
		_, err := ReadPrompt(path)
		if err == nil || !strings.Contains(err.Error(), `peft_type "LORA", want "PROMPT_TUNING"`) {
			t.Errorf("%s: error %v", path, err)
		}
	}
	if _, err := ReadPrompt(t.TempDir()); err == nil ||
		!strings.Contains(err.Error(), "found neither adapter_model.safetensors nor adapter_model.bin") {
		t.Errorf("an empty directory: error %v", err)
	}

	// Without the configuration, an even number of rows may be of two submodules.
	data, err := os.ReadFile(filepath.Join(dir, "adapter_model.bin"))
	if err != nil {
		t.Fatal(err)
	}
	alone := write(t, map[string][]byte{"adapter_model.bin": data})
	if _, err := ReadPrompt(alone); err == nil || !strings.Contains(err.Error(), "adapter_config.json is missing") {
		t.Errorf("without its configuration: error %v", err)
	}
}
