package checkpoint

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
)

// architecture lists the fields of config.json on which a T5's outputs depend,
// with the defaults of Transformers' T5Config. A nil default means that an
// absent field is a value of its own.
var architecture = []struct {
	field  string
	absent any
}{
	{"d_ff", 2048.0},
	{"d_kv", 64.0},
	{"d_model", 512.0},
	{"decoder_start_token_id", nil},
	{"eos_token_id", 1.0},
	{"feed_forward_proj", "relu"},
	{"layer_norm_epsilon", 1e-6},
	{"model_type", nil},
	{"num_decoder_layers", nil},
	{"num_heads", 8.0},
	{"num_layers", 6.0},
	{"pad_token_id", 0.0},
	{"relative_attention_max_distance", 128.0},
	{"relative_attention_num_buckets", 32.0},
	{"scale_decoder_outputs", nil},
	{"tie_word_embeddings", true},
	{"vocab_size", 32128.0},
}

// Digest identifies the model: the SHA-256 of the fields of config.json on
// which its outputs depend and, in the order of their names, each tensor's
// name, dtype, shape and the SHA-256 of its bytes. It does not depend on how
// the tensors are spread over files, nor on config.json's layout or on fields
// that only describe training. The first call reads all weights; later ones
// return the same result at once.
func (m *Model) Digest() ([32]byte, error) { return m.digest() }

func (m *Model) computeDigest() ([32]byte, error) {
	canonical, err := canonicalConfig(m.config)
	if err != nil {
		return [32]byte{}, fmt.Errorf("digest of model %s: %s: %w", m.name, configFile, err)
	}
	names := m.Names()
	if len(names) == 0 {
		return [32]byte{}, fmt.Errorf("digest of model %s: %w", m.name, errors.New("the model is closed"))
	}
	sums := make([][32]byte, len(names))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, name := range names {
		group.Go(func() error {
			t, err := m.tensors[name].Tensor(name)
			if err == nil {
				sums[i] = digestTensor(t)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return [32]byte{}, fmt.Errorf("digest of model %s: %w", m.name, err)
	}
	h := sha256.New()
	writeField(h, []byte("dpt model 1"))
	writeField(h, canonical)
	for _, sum := range sums {
		writeField(h, sum[:])
	}
	return [32]byte(h.Sum(nil)), nil
}

func digestTensor(t Tensor) [32]byte {
	h := sha256.New()
	writeField(h, []byte(t.Name))
	writeField(h, []byte(t.DType))
	writeField(h, []byte(strings.Trim(fmt.Sprint(t.Shape), "[]")))
	writeField(h, t.Data)
	return [32]byte(h.Sum(nil))
}

// writeField writes b with its length before it, so that no two sequences of
// fields give the same bytes.
func writeField(h io.Writer, b []byte) {
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(b)))
	h.Write(n[:]) // a hash's Write never fails
	h.Write(b)
}

// canonicalConfig returns the architecture of a config.json as JSON with fixed
// fields in a fixed order and defaults filled in.
func canonicalConfig(config []byte) ([]byte, error) {
	var object map[string]any
	if err := json.Unmarshal(config, &object); err != nil {
		return nil, err
	}
	out := make([][2]any, 0, len(architecture))
	for _, f := range architecture {
		v := object[f.field]
		if v == nil {
			v = f.absent
		}
		if v == nil { // absent, with a default that depends on another field
			switch f.field {
			case "num_decoder_layers":
				if v = object["num_layers"]; v == nil {
					v = 6.0
				}
			case "scale_decoder_outputs": // written by Transformers 5
				v = object["tie_word_embeddings"] != false
			}
		}
		out = append(out, [2]any{f.field, v})
	}
	return json.Marshal(out)
}
