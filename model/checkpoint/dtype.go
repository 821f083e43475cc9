package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"
)

// DType names an element type as the safetensors format does.
type DType string

// The element types that this package converts to float32.
const (
	Float16  DType = "F16"
	BFloat16 DType = "BF16"
	Float32  DType = "F32"
	Float64  DType = "F64"
)

// dtypes lists the element types of the safetensors format with the size of an
// element in bits and the rank by which the reference implementation orders
// tensors in a file: the most strictly aligned first.
var dtypes = map[DType]struct {
	bits uint64
	rank int
}{
	"BOOL": {8, 0}, "F4": {4, 1}, "F6_E2M3": {6, 2}, "F6_E3M2": {6, 3},
	"U8": {8, 4}, "I8": {8, 5}, "F8_E5M2": {8, 6}, "F8_E4M3": {8, 7}, "F8_E8M0": {8, 8},
	"F8_E4M3FNUZ": {8, 9}, "F8_E5M2FNUZ": {8, 10},
	"I16": {16, 11}, "U16": {16, 12}, Float16: {16, 13}, BFloat16: {16, 14},
	"I32": {32, 15}, "U32": {32, 16}, Float32: {32, 17},
	"C64": {64, 18}, Float64: {64, 19}, "I64": {64, 20}, "U64": {64, 21},
}

// littleEndian reports whether this machine stores numbers as safetensors does.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// Tensor is a named, dense, row-major array of little-endian elements.
//
// Data of a tensor that came from a File belongs to that File: it must not be
// written to, nor read after the File is closed.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	Data  []byte
}

// F32 returns a tensor over data, which it does not copy on little-endian
// machines: the caller leaves data alone as long as the tensor is in use.
func F32(name string, shape []int, data []float32) Tensor {
	t := Tensor{Name: name, DType: Float32, Shape: shape}
	if littleEndian && len(data) > 0 {
		t.Data = unsafe.Slice((*byte)(unsafe.Pointer(&data[0])), 4*len(data))
		return t
	}
	t.Data = make([]byte, 4*len(data))
	for i, v := range data {
		binary.LittleEndian.PutUint32(t.Data[4*i:], math.Float32bits(v))
	}
	return t
}

// Float32 returns the elements in row-major order. F16, BF16 and F64 are
// converted into new memory, F64 by rounding to the nearest float32. F32 is
// handed out without a copy where alignment and byte order allow it, so the
// result is read-only and lives as long as t.Data.
func (t Tensor) Float32() ([]float32, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	d := t.Data
	switch t.DType {
	case Float64:
		out := make([]float32, len(d)/8)
		for i := range out {
			out[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(d[8*i:])))
		}
		return out, nil
	case BFloat16:
		out := make([]float32, len(d)/2)
		for i := range out {
			out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(d[2*i:])) << 16)
		}
		return out, nil
	case Float16:
		out := make([]float32, len(d)/2)
		for i := range out {
			out[i] = halfToFloat32(binary.LittleEndian.Uint16(d[2*i:]))
		}
		return out, nil
	}
	// Float32
	if len(d) == 0 {
		return []float32{}, nil
	}
	if littleEndian && uintptr(unsafe.Pointer(&d[0]))%4 == 0 {
		return unsafe.Slice((*float32)(unsafe.Pointer(&d[0])), len(d)/4), nil
	}
	out := make([]float32, len(d)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(d[4*i:]))
	}
	return out, nil
}

// check verifies that Float32 can convert the tensor.
func (t Tensor) check() error {
	size, err := byteSize(t.DType, t.Shape)
	if err != nil {
		return fmt.Errorf("tensor %s: %w", t.Name, err)
	}
	if uint64(len(t.Data)) != size {
		return fmt.Errorf("tensor %s: %d bytes of data, want %d for %s %v",
			t.Name, len(t.Data), size, t.DType, t.Shape)
	}
	switch t.DType {
	case Float16, BFloat16, Float32, Float64:
		return nil
	}
	return fmt.Errorf("tensor %s: dtype %s, want F32, F16, BF16 or F64", t.Name, t.DType)
}

// halfToFloat32 widens an IEEE 754 binary16, exactly.
func halfToFloat32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp := uint32(h>>10) & 0x1f
	frac := uint32(h) & 0x3ff
	switch exp {
	case 0: // zero or subnormal: frac · 2^-24 is exact in float32
		v := float32(frac) * (1.0 / (1 << 24))
		return math.Float32frombits(sign | math.Float32bits(v))
	case 0x1f: // infinity or NaN, payload kept
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}

// byteSize returns the number of bytes of dtype × shape, without overflow.
func byteSize(dtype DType, shape []int) (uint64, error) {
	dt, ok := dtypes[dtype]
	if !ok {
		return 0, fmt.Errorf("unknown dtype %q", string(dtype))
	}
	n := dt.bits
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v has a negative dimension", shape)
		}
		if d != 0 && n > math.MaxUint64/uint64(d) {
			return 0, fmt.Errorf("size of %s %v overflows", dtype, shape)
		}
		n *= uint64(d)
	}
	if n%8 != 0 {
		return 0, fmt.Errorf("%s %v is %d bits, not a whole number of bytes", dtype, shape, n)
	}
	return n / 8, nil
}
