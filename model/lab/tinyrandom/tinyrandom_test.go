package tinyrandom

import (
	"encoding/hex"
	"testing"

	"github.com/dptune/dpt/dataset/tokenizer"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/t5"
)

// digest is the model's digest when the tests that run on it were written.
const digest = "78ed97e3a0c6adbd268460d02ece4ab084c1033fc802361a41008d41b16f25e2"

// TestDir: the model is the same to the last bit on every platform, and its files fit together.
func TestDir(t *testing.T) {
	dir := Dir(t)
	m, err := checkpoint.OpenModel(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	sum, err := m.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(sum[:]); got != digest {
		t.Errorf("the model's digest is %s, want %s", got, digest)
	}
	c, err := t5.ParseConfig(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	if err := t5.Check(c, m); err != nil {
		t.Error(err)
	}
	if c.DModel != DModel || c.VocabSize != VocabSize || !t5.Tied(m) {
		t.Errorf("d_model %d, vocabulary %d, tied %v; want %d, %d and tied",
			c.DModel, c.VocabSize, t5.Tied(m), DModel, VocabSize)
	}
	tok, err := tokenizer.Open(dir)
	if err != nil || tok.VocabSize() != VocabSize {
		t.Errorf("tokenizer %v (%v), want one of %d ids", tok, err, VocabSize)
	}
}

func BenchmarkTensors(b *testing.B) {
	for b.Loop() {
		tensors(config())
	}
}
