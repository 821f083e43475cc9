package checkpoint

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Write writes tensors as a safetensors file, atomically (see
// WriteFileAtomic). The bytes depend on the tensors and metadata alone, not on
// their order: tensors come as in the reference implementation, the most
// strictly aligned dtype first and then by name, metadata by key, and the
// tensor area starts at a multiple of 8 bytes.
func Write(path string, tensors []Tensor, metadata map[string]string) error {
	header, sorted, err := encodeHeader(tensors, metadata)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return writeAtomic(path, func(w io.Writer) error {
		if _, err := w.Write(header); err != nil {
			return err
		}
		for _, t := range sorted {
			if _, err := w.Write(t.Data); err != nil {
				return err
			}
		}
		return nil
	})
}

// encodeHeader returns the header with its length, and the tensors in the
// order of the file.
func encodeHeader(tensors []Tensor, metadata map[string]string) ([]byte, []Tensor, error) {
	sorted := slices.Clone(tensors)
	slices.SortFunc(sorted, func(a, b Tensor) int {
		if d := dtypes[b.DType].rank - dtypes[a.DType].rank; d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})

	// The header's length is filled in at the end; metadata comes first.
	var buf bytes.Buffer
	buf.Write(make([]byte, 8))
	buf.WriteByte('{')
	if len(metadata) > 0 {
		buf.WriteString(`"__metadata__":{`)
		for i, key := range slices.Sorted(maps.Keys(metadata)) {
			if i > 0 {
				buf.WriteByte(',')
			}
			if err := writeString(&buf, key); err != nil {
				return nil, nil, fmt.Errorf("metadata: %w", err)
			}
			buf.WriteByte(':')
			if err := writeString(&buf, metadata[key]); err != nil {
				return nil, nil, fmt.Errorf("metadata %s: %w", key, err)
			}
		}
		buf.WriteByte('}')
	}

	// One entry per tensor, with its place in the tensor area.
	seen := make(map[string]bool, len(sorted))
	at := 0
	for i, t := range sorted {
		if t.Name == "__metadata__" || seen[t.Name] {
			return nil, nil, fmt.Errorf("tensor name %q is taken", t.Name)
		}
		seen[t.Name] = true
		size, err := byteSize(t.DType, t.Shape)
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %s: %w", t.Name, err)
		}
		if size != uint64(len(t.Data)) {
			return nil, nil, fmt.Errorf("tensor %s: %d bytes of data, want %d for %s %v",
				t.Name, len(t.Data), size, t.DType, t.Shape)
		}
		if i > 0 || len(metadata) > 0 {
			buf.WriteByte(',')
		}
		if err := writeString(&buf, t.Name); err != nil {
			return nil, nil, fmt.Errorf("tensor name: %w", err)
		}
		shape := strings.ReplaceAll(strings.Trim(fmt.Sprint(t.Shape), "[]"), " ", ",")
		fmt.Fprintf(&buf, `:{"dtype":"%s","shape":[%s],"data_offsets":[%d,%d]}`, t.DType, shape, at, at+len(t.Data))
		at += len(t.Data)
	}

	// Spaces align the tensor area.
	buf.WriteByte('}')
	for buf.Len()%8 != 0 {
		buf.WriteByte(' ')
	}
	n := buf.Len() - 8
	if n > maxHeader {
		return nil, nil, fmt.Errorf("header is %d bytes, want at most %d", n, maxHeader)
	}
	header := buf.Bytes()
	binary.LittleEndian.PutUint64(header, uint64(n))
	return header, sorted, nil
}

// writeString writes s as a JSON string, without the HTML escapes that
// json.Marshal puts in.
func writeString(buf *bytes.Buffer, s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("%q is not UTF-8", s)
	}
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return err
	}
	buf.Truncate(buf.Len() - 1) // Encode's newline
	return nil
}
