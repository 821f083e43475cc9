package checkpoint

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// BF16 returns a tensor of data rounded to bfloat16: to nearest, ties to even. A number beyond
// bfloat16's range becomes infinite.
func BF16(name string, shape []int, data []float32) Tensor {
	t := Tensor{Name: name, DType: BFloat16, Shape: shape, Data: make([]byte, 2*len(data))}
	for i, v := range data {
		u := math.Float32bits(v)
		switch {
		case v != v:
			u = 0x7fc0 << 16
		default:
			u += 0x7fff + u>>16&1
		}
		binary.LittleEndian.PutUint16(t.Data[2*i:], uint16(u>>16))
	}
	return t
}

// WriteModel writes a model directory as Transformers' save_pretrained does: model.safetensors,
// config.json, and the extra files (a tokenizer's) by name. Each file is written atomically,
// config.json last, so that a new directory has one only once it is complete.
func WriteModel(dir string, config []byte, tensors []Tensor, extra map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("write model %s: %w", dir, err)
	}
	if err := Write(filepath.Join(dir, weightsFile), tensors, map[string]string{"format": "pt"}); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		if err := WriteFileAtomic(filepath.Join(dir, name), extra[name]); err != nil {
			return err
		}
	}
	return WriteFileAtomic(filepath.Join(dir, configFile), config)
}
