package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// encode returns the bytes that Write writes.
func encode(tensors []Tensor, metadata map[string]string) ([]byte, error) {
	header, sorted, err := encodeHeader(tensors, metadata)
	if err != nil {
		return nil, err
	}
	out := bytes.NewBuffer(header)
	for _, t := range sorted {
		out.Write(t.Data)
	}
	return out.Bytes(), nil
}

// raw returns a safetensors file with the given header and size bytes of
// tensor area.
func raw(header string, size int) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	out = append(out, header...)
	return append(out, make([]byte, size)...)
}

func TestParseRefuses(t *testing.T) {
	one := `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`
	long := raw(one, 8)
	binary.LittleEndian.PutUint64(long, maxHeader+1)
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "file is 0 bytes, want at least the 8"},
		{"html", []byte("<!DOCTYPE html><html>"), "not a safetensors file"},
		{"header too long", long, "header length 100000001 exceeds the limit of 100000000"},
		{"truncated header", raw(one, 8)[:40], "the file is truncated"},
		{"not an object", raw(`["a"]`, 0), "header does not start with '{'"},
		{"empty header", raw(``, 0), "header does not start with '{'"},
		{"not UTF-8", raw("{\"\xff\":1}", 0), "header is not UTF-8"},
		{"half an object", raw(`{"a":{"dtype":"F32"`, 0), "JSON ends in the middle"},
		{"text after", raw(one+"x", 8), "after the closing brace"},
		{"object after", raw(one+"{}", 8), "after the closing brace"},
		{"truncated data", raw(one, 7),
			"tensor a: data_offsets [0 8] end beyond the file's 7 bytes of tensors: the file is truncated"},
		{"data after", raw(one, 9), "1 bytes belong to no tensor"},
		{"duplicate tensor", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},`+
			`"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), `"a" appears twice`},
		{"duplicate field", raw(`{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
			`tensor a: "dtype" appears twice`},
		{"overlap", raw(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},`+
			`"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3),
			"tensor b: data_offsets [1 3] overlap the tensor before, which ends at 2"},
		{"same bytes", raw(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},`+
			`"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 2), "tensor b: data_offsets [0 2] overlap"},
		{"gap", raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2),
			"tensor a: data_offsets [1 2] leave a gap after 0"},
		{"backwards", raw(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[1,0]}}`, 1), "run backwards"},
		{"mis-shaped", raw(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, 8),
			"tensor a: data_offsets [0 8] hold 8 bytes, want 12 for F32 [3]"},
		{"overflow", raw(`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0), "overflows"},
		{"overflow in bits", raw(`{"a":{"dtype":"U64","shape":[1152921504606846976],"data_offsets":[0,0]}}`, 0),
			"overflows"},
		{"negative dimension", raw(`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}}`, 0),
			"found -1, want a whole number"},
		{"fractional dimension", raw(`{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,0]}}`, 0),
			"found 1.5, want a whole number"},
		{"huge offset", raw(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}}`, 4),
			"found 18446744073709551615, want a whole number"},
		{"half a byte", raw(`{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}`, 1), "not a whole number of bytes"},
		{"three offsets", raw(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}`, 4),
			"data_offsets has 3 numbers, want 2"},
		{"unknown dtype", raw(`{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}`, 4),
			`tensor a: unknown dtype "F31"`},
		{"missing shape", raw(`{"a":{"dtype":"F32","data_offsets":[0,4]}}`, 4),
			"want the fields dtype, shape and data_offsets"},
		{"other case of a field", raw(`{"a":{"dtype":"F32","SHAPE":[1],"data_offsets":[0,4]}}`, 4),
			"want the fields dtype, shape and data_offsets"},
		{"metadata not strings", raw(`{"__metadata__":{"n":1}}`, 0), `metadata "n" is not a string`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("x.safetensors", c.data)
			if err == nil || !strings.Contains(err.Error(), c.want) ||
				!strings.HasPrefix(err.Error(), "read x.safetensors: ") {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestParseAccepts(t *testing.T) {
	f, err := Parse("x", raw(`{"b":{"data_offsets":[0,0],"shape":[0,5],"dtype":"F32"},`+
		`"a":{"dtype":"BF16","shape":[],"data_offsets":[0,2],"more":[{}]},`+
		`"__metadata__":{"k":"v"}}   `, 2))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Names(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("names %q", got)
	}
	if f.Metadata()["k"] != "v" {
		t.Errorf("metadata %v", f.Metadata())
	}
	b, err := f.Tensor("b")
	if err != nil || !slices.Equal(b.Shape, []int{0, 5}) || len(b.Data) != 0 {
		t.Errorf("b = %+v, %v", b, err)
	}
	if v, err := b.Float32(); err != nil || len(v) != 0 {
		t.Errorf("b.Float32() = %v, %v", v, err)
	}
	if _, err := f.Tensor("c"); err == nil || err.Error() != "read x: tensor c is missing" {
		t.Errorf("error %v", err)
	}
	if f, err := Parse("empty", raw(`{}`, 0)); err != nil || len(f.Names()) != 0 {
		t.Errorf("empty file: %v", err)
	}
}

func TestWriteReadsBack(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "w.safetensors")
	big := make([]float32, 3*mapMinFloats)
	for i := range big {
		big[i] = float32(i) / 7
	}
	tensors := []Tensor{
		F32("z", []int{3, mapMinFloats}, big),
		{Name: "h", DType: "BF16", Shape: []int{3}, Data: []byte{0, 0x3f, 0x80, 0x3f, 0, 0xc0}},
		F32(`quo"te <&> é`, []int{}, []float32{1.5}),
		{Name: "i", DType: "I64", Shape: []int{1}, Data: make([]byte, 8)},
	}
	meta := map[string]string{"format": "pt", "b": "2", "a": "<1>"}
	if err := Write(path, tensors, meta); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(tensors)
	want, err := encode(tensors, meta)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the bytes depend on the order of the tensors")
	}
	n := binary.LittleEndian.Uint64(got)
	if (8+n)%8 != 0 {
		t.Errorf("tensor area starts at %d, want a multiple of 8", 8+n)
	}
	const header = `{"__metadata__":{"a":"<1>","b":"2","format":"pt"},` +
		`"i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},` +
		`"quo\"te <&> é":{"dtype":"F32","shape":[],"data_offsets":[8,12]},` +
		`"z":{"dtype":"F32","shape":[3,20000],`
	if !strings.HasPrefix(string(got[8:]), header) {
		t.Errorf("header %s", got[8:8+n])
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, w := range tensors {
		g, err := f.Tensor(w.Name)
		if err != nil || g.DType != w.DType || !slices.Equal(g.Shape, w.Shape) || !bytes.Equal(g.Data, w.Data) {
			t.Errorf("tensor %s differs (%v)", w.Name, err)
		}
	}
	z, _ := f.Tensor("z")
	if v, err := z.Float32(); err != nil || !slices.Equal(v, big) {
		t.Errorf("z differs (%v)", err)
	}
	h, _ := f.Tensor("h")
	if v, err := h.Float32(); err != nil || !slices.Equal(v, []float32{0.5, 1, -2}) {
		t.Errorf("h = %v, %v", v, err)
	}
}

const mapMinFloats = 20_000 // three rows of these are above mapMin

func TestWriteRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	for want, tensors := range map[string][]Tensor{
		`tensor name "a" is taken`:            {F32("a", nil, []float32{1}), F32("a", nil, []float32{1})},
		`tensor name "__metadata__" is taken`: {F32("__metadata__", nil, []float32{1})},
		"tensor a: 4 bytes of data, want 8":   {F32("a", []int{2}, []float32{1})},
		"is not UTF-8":                        {F32("\xff", nil, []float32{1})},
		`unknown dtype "F31"`:                 {{Name: "a", DType: "F31"}},
		"has a negative dimension":            {{Name: "a", DType: "F32", Shape: []int{-1}}},
	} {
		if err := Write(path, tensors, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestHalf checks every finite binary16 against arithmetic: converting is exact.
func TestHalf(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		got := float64(halfToFloat32(h))
		exp, frac := int(h>>10&31), float64(h&1023)
		want := math.Ldexp(1024+frac, exp-25)
		switch {
		case exp == 0:
			want = math.Ldexp(frac, -24)
		case exp == 31 && frac == 0:
			want = math.Inf(1)
		case exp == 31:
			want = math.NaN()
		}
		if h>>15 == 1 {
			want = -want
		}
		if math.Float64bits(got) != math.Float64bits(want) && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Fatalf("%#04x = %v, want %v", h, got, want)
		}
	}
}

func TestFloat32Conversions(t *testing.T) {
	d := binary.LittleEndian.AppendUint64(nil, math.Float64bits(1e-3))
	d = binary.LittleEndian.AppendUint64(d, math.Float64bits(-1e300))
	v, err := Tensor{Name: "d", DType: "F64", Shape: []int{2}, Data: d}.Float32()
	if err != nil || v[0] != 1e-3 || !math.IsInf(float64(v[1]), -1) {
		t.Errorf("F64: %v, %v", v, err)
	}
	unaligned := append([]byte{9}, F32("", nil, []float32{1, 2}).Data...)[1:]
	v, err = Tensor{Name: "u", DType: "F32", Shape: []int{2}, Data: unaligned}.Float32()
	if err != nil || !slices.Equal(v, []float32{1, 2}) {
		t.Errorf("unaligned: %v, %v", v, err)
	}
	if _, err := (Tensor{Name: "i", DType: "I64", Shape: []int{1}, Data: make([]byte, 8)}).Float32(); err == nil ||
		err.Error() != "tensor i: dtype I64, want F32, F16, BF16 or F64" {
		t.Errorf("I64: error %v", err)
	}
}

func TestOpenNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "none.safetensors")
	if _, err := Open(missing); err == nil ||
		err.Error() != fmt.Sprintf("read %s: no such file or directory", missing) {
		t.Errorf("missing file: error %v", err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "want a regular file") {
		t.Errorf("directory: error %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(raw(`{"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},`+
		`"b":{"dtype":"F16","shape":[2,1],"data_offsets":[8,12]}}`, 12))
	f.Add(raw(`{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}`, 1))
	f.Add(raw(`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse("fuzz", data)
		if err != nil {
			return
		}
		var tensors []Tensor
		for _, name := range file.Names() {
			ten, err := file.Tensor(name)
			if err != nil {
				t.Fatal(err)
			}
			if v, err := ten.Float32(); err == nil && len(v)*int(dtypes[ten.DType].bits) != 8*len(ten.Data) {
				t.Fatalf("tensor %s: %d numbers from %d bytes", name, len(v), len(ten.Data))
			}
			tensors = append(tensors, ten)
		}
		// What was accepted can be written, and reads back the same.
		out, err := encode(tensors, file.Metadata())
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("again", out)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range tensors {
			got, err := again.Tensor(want.Name)
			if err != nil || !bytes.Equal(got.Data, want.Data) || !slices.Equal(got.Shape, want.Shape) {
				t.Fatalf("tensor %s changed (%v)", want.Name, err)
			}
		}
	})
}
