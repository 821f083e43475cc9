package checkpoint

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"
)

// maxHeader is the reference implementation's limit on a header, in bytes.
const maxHeader = 100_000_000

// File is an open safetensors file, or one that torch.save wrote. Its methods may
// be called from several goroutines at once, except Close, which invalidates all
// data handed out.
type File struct {
	name     string
	data     []byte // the tensor area, after the header; of torch.save's, the whole file
	tensors  map[string]entry
	names    []string
	metadata map[string]string
	alias    map[string]bool // further names of a torch.save file's tensors
	unmap    func() error
}

type entry struct {
	dtype      DType
	shape      []int
	begin, end uint64 // in File.data
	strides    []int  // in elements, of a torch.save file's tensor that is not row-major; else nil
}

// Open maps the safetensors file at path, or a state dictionary that torch.save
// of PyTorch 1.6 or later wrote, into memory and checks it. The file must not be
// truncated in place while it is open.
func Open(path string) (*File, error) {
	data, unmap, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	f, err := parseWeights(path, data)
	if err != nil {
		return nil, errors.Join(err, unmap())
	}
	f.unmap = unmap
	return f, nil
}

// Parse reads a safetensors file from data, which it keeps. name is used in
// errors.
func Parse(name string, data []byte) (*File, error) {
	f := &File{name: name}
	if err := f.parse(data); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return f, nil
}

// Names returns the names of the tensors, sorted.
func (f *File) Names() []string { return slices.Clone(f.names) }

// Metadata returns the file's free-form metadata; it is never nil.
func (f *File) Metadata() map[string]string { return maps.Clone(f.metadata) }

// Has reports whether the file holds a tensor of that name.
func (f *File) Has(name string) bool {
	_, ok := f.tensors[name]
	return ok
}

// Tensor returns the tensor of that name.
func (f *File) Tensor(name string) (Tensor, error) {
	e, ok := f.tensors[name]
	if !ok {
		return Tensor{}, fmt.Errorf("read %s: tensor %s is missing", f.name, name)
	}
	if e.strides != nil {
		data := rowMajorCopy(f.data[e.begin:e.end], e)
		return Tensor{Name: name, DType: e.dtype, Shape: slices.Clone(e.shape), Data: data}, nil
	}
	return Tensor{Name: name, DType: e.dtype, Shape: slices.Clone(e.shape), Data: f.data[e.begin:e.end:e.end]}, nil
}

// Close releases the file's memory. Tensors of the file must not be used after.
func (f *File) Close() error {
	unmap := f.unmap
	f.unmap, f.data, f.tensors, f.names = nil, nil, nil, nil
	if unmap == nil {
		return nil
	}
	return unmap()
}

// parse reads the layout
//
//	uint64 n, little endian | n bytes of JSON | tensor area
//
// and enforces the reference implementation's rules: tensors fill the area
// without gap or overlap, and each is as long as its dtype and shape require.
func (f *File) parse(data []byte) error {
	if err := checkLFS(data); err != nil {
		return err
	}
	if len(data) < 8 {
		return fmt.Errorf("file is %d bytes, want at least the 8 of a safetensors header length", len(data))
	}
	n := binary.LittleEndian.Uint64(data)
	if n > maxHeader {
		return fmt.Errorf("header length %d exceeds the limit of %d: not a safetensors file", n, maxHeader)
	}
	if n > uint64(len(data)-8) {
		return fmt.Errorf("header of %d bytes does not fit the file's %d: the file is truncated", n, len(data))
	}
	header := data[8 : 8+n]
	f.data = data[8+n:]
	if !utf8.Valid(header) {
		return errors.New("header is not UTF-8")
	}
	if len(header) == 0 || header[0] != '{' {
		return errors.New("header does not start with '{': not a safetensors file")
	}
	if err := f.parseHeader(header); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	return f.checkLayout()
}

func (f *File) parseHeader(header []byte) error {
	f.tensors = make(map[string]entry)
	f.metadata = make(map[string]string)
	dec := json.NewDecoder(bytes.NewReader(header))
	dec.UseNumber()
	err := eachField(dec, func(name string) error {
		if name == "__metadata__" {
			return eachField(dec, func(key string) error {
				tok, err := dec.Token()
				if err != nil {
					return err
				}
				v, ok := tok.(string)
				if !ok {
					return fmt.Errorf("metadata %q is not a string", key)
				}
				f.metadata[key] = v
				return nil
			})
		}
		e, err := decodeEntry(dec)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", name, err)
		}
		f.tensors[name] = e
		return nil
	})
	if err != nil {
		return err
	}
	if tok, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("%v after the closing brace", tok)
	}
	f.names = slices.Sorted(maps.Keys(f.tensors))
	return nil
}

// decodeEntry reads {"dtype": D, "shape": [...], "data_offsets": [begin, end]}.
func decodeEntry(dec *json.Decoder) (entry, error) {
	var e entry
	var dtype, shape, offsets bool
	err := eachField(dec, func(key string) error {
		switch key {
		case "dtype":
			tok, err := dec.Token()
			if err != nil {
				return err
			}
			s, ok := tok.(string)
			if !ok {
				return fmt.Errorf("dtype %v is not a string", tok)
			}
			e.dtype, dtype = DType(s), true
		case "shape":
			dims, err := decodeUints(dec)
			if err != nil {
				return fmt.Errorf("shape: %w", err)
			}
			e.shape, shape = make([]int, len(dims)), true
			for i, d := range dims {
				e.shape[i] = int(d)
			}
		case "data_offsets":
			o, err := decodeUints(dec)
			if err != nil {
				return fmt.Errorf("data_offsets: %w", err)
			}
			if len(o) != 2 {
				return fmt.Errorf("data_offsets has %d numbers, want 2", len(o))
			}
			e.begin, e.end, offsets = o[0], o[1], true
		default:
			var skip json.RawMessage
			return dec.Decode(&skip)
		}
		return nil
	})
	if err != nil {
		return entry{}, err
	}
	if !dtype || !shape || !offsets {
		return entry{}, errors.New("want the fields dtype, shape and data_offsets")
	}
	return e, nil
}

// checkLayout checks every tensor against its dtype and shape, and that they
// fill the tensor area from its start to its end.
func (f *File) checkLayout() error {
	order := slices.Clone(f.names)
	slices.SortStableFunc(order, func(a, b string) int {
		x, y := f.tensors[a], f.tensors[b]
		if x.begin != y.begin {
			return cmpUint(x.begin, y.begin)
		}
		return cmpUint(x.end, y.end)
	})
	area, at := uint64(len(f.data)), uint64(0)
	for _, name := range order {
		e := f.tensors[name]
		size, err := byteSize(e.dtype, e.shape)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", name, err)
		}
		switch {
		case e.end < e.begin:
			return fmt.Errorf("tensor %s: data_offsets [%d %d] run backwards", name, e.begin, e.end)
		case e.begin < at:
			return fmt.Errorf("tensor %s: data_offsets [%d %d] overlap the tensor before, which ends at %d",
				name, e.begin, e.end, at)
		case e.begin > at:
			return fmt.Errorf("tensor %s: data_offsets [%d %d] leave a gap after %d", name, e.begin, e.end, at)
		case e.end-e.begin != size:
			return fmt.Errorf("tensor %s: data_offsets [%d %d] hold %d bytes, want %d for %s %v",
				name, e.begin, e.end, e.end-e.begin, size, e.dtype, e.shape)
		case e.end > area:
			return fmt.Errorf(
				"tensor %s: data_offsets [%d %d] end beyond the file's %d bytes of tensors: the file is truncated",
				name, e.begin, e.end, area)
		}
		at = e.end
	}
	if at != area {
		return fmt.Errorf("tensors end at %d of %d bytes: %d bytes belong to no tensor", at, area, area-at)
	}
	return nil
}

func cmpUint(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// eachField reads a JSON object and calls field for each key; field reads the
// value. A key that appears twice is an error, unlike in encoding/json, which
// would silently pick one of two tensors of the same name.
func eachField(dec *json.Decoder, field func(key string) error) error {
	tok, err := dec.Token()
	if err != nil {
		return noEOF(err)
	}
	if tok != json.Delim('{') {
		return fmt.Errorf("found %v, want a JSON object", tok)
	}
	seen := make(map[string]bool)
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return noEOF(err)
		}
		key, ok := tok.(string)
		if !ok {
			return fmt.Errorf("found %v, want a name", tok)
		}
		if seen[key] {
			return fmt.Errorf("%q appears twice", key)
		}
		seen[key] = true
		if err := field(key); err != nil {
			return noEOF(err)
		}
	}
	_, err = dec.Token()
	return noEOF(err)
}

// decodeUints reads a JSON array of whole numbers in [0, MaxInt].
func decodeUints(dec *json.Decoder) ([]uint64, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	if tok != json.Delim('[') {
		return nil, fmt.Errorf("found %v, want an array", tok)
	}
	out := []uint64{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		num, ok := tok.(json.Number)
		if !ok {
			return nil, fmt.Errorf("found %v, want a number", tok)
		}
		v, err := strconv.ParseUint(num.String(), 10, strconv.IntSize-1)
		if err != nil {
			return nil, fmt.Errorf("found %s, want a whole number from 0 to %d", num, uint64(1)<<(strconv.IntSize-1)-1)
		}
		out = append(out, v)
	}
	_, err = dec.Token()
	return out, err
}

// noEOF names the end of a header that stops in the middle of a value.
func noEOF(err error) error {
	if err == io.EOF {
		return errors.New("JSON ends in the middle of a value")
	}
	return err
}
