package tokenizer

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// golden is one expectation of testdata/*.json; make_goldens.py writes them with
// the reference tokenizers.
type golden struct {
	Text   *string `json:"text"`
	Base64 []byte  `json:"base64"` // instead of Text, where that is not valid UTF-8
	Repeat int     `json:"repeat"`
	Max    int     `json:"max"`
	IDs    []int32 `json:"ids"`
	SHA256 string  `json:"sha256"` // of the ids, where they are many
}

func (g golden) input() string {
	s := string(g.Base64)
	if g.Text != nil {
		s = *g.Text
	}
	return strings.Repeat(s, max(g.Repeat, 1))
}

func (g golden) check(t *testing.T, got []int32) {
	t.Helper()
	in := g.input()
	if len(in) > 60 {
		in = in[:60] + "…"
	}
	if g.SHA256 != "" {
		if sum := idsDigest(got, 32); sum != g.SHA256 {
			t.Errorf("%q: %d ids with digest %s, want %s", in, len(got), sum, g.SHA256)
		}
	} else if !slices.Equal(got, g.IDs) {
		t.Errorf("%q:\n got %v\nwant %v", in, got, g.IDs)
	}
}

type goldenFile struct {
	Model    string   `json:"model"` // SHA-256 of the spiece.model
	Encode   []golden `json:"encode"`
	Special  []golden `json:"special"`
	Truncate []golden `json:"truncate"`
	Decode   []struct {
		IDs  []int32 `json:"ids"`
		Text string  `json:"text"`
	} `json:"decode"`
}

// idsDigest is the first n bytes, in hex, of SHA-256 over ids as little-endian int32.
func idsDigest(ids []int32, n int) string {
	h := sha256.New()
	if err := binary.Write(h, binary.LittleEndian, ids); err != nil {
		panic(err)
	}
	return hex.EncodeToString(h.Sum(nil)[:n])
}

func readGoldens(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func checkGoldens(t *testing.T, tok Tokenizer, g goldenFile) {
	if len(g.Encode) == 0 {
		t.Fatal("no goldens")
	}
	for _, c := range slices.Concat(g.Encode, g.Special) {
		c.check(t, tok.Encode(c.input()))
	}
	for _, c := range g.Truncate {
		c.check(t, EncodeTruncated(tok, c.input(), c.Max))
	}
	for _, c := range g.Decode {
		if got := tok.Decode(c.IDs); got != c.Text {
			t.Errorf("Decode(%v) = %q, want %q", c.IDs, got, c.Text)
		}
	}
}

func openFile(t testing.TB, path string) Tokenizer {
	t.Helper()
	tok, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestGoldens(t *testing.T) {
	for _, c := range []struct{ model, goldens string }{
		{"small.model", "small.json"},          // built like T5's
		{"small.tokenizer.json", "small.json"}, // the same model
		{"symbols.model", "symbols.json"},      // user-defined and control symbols, space as suffix
		{"bytes.model", "bytes.json"},          // byte fallback, spaces kept
	} {
		t.Run(c.model, func(t *testing.T) {
			var g goldenFile
			readGoldens(t, c.goldens, &g)
			checkGoldens(t, openFile(t, filepath.Join("testdata", c.model)), g)
		})
	}
	t.Run("byt5", func(t *testing.T) {
		var g goldenFile
		readGoldens(t, "byt5.json", &g)
		checkGoldens(t, NewByteLevel(125), g)
	})
}

// TestFormatsAgree: a model and the tokenizer.json made from it are one tokenizer.
func TestFormatsAgree(t *testing.T) {
	a, b := openFile(t, "testdata/small.model"), openFile(t, "testdata/small.tokenizer.json")
	if a.Digest() != b.Digest() {
		t.Errorf("digests differ: %x and %x", a.Digest(), b.Digest())
	}
	if a.VocabSize() != 700 || b.VocabSize() != 700 {
		t.Errorf("%d and %d ids, want 600 pieces and 100 sentinels", a.VocabSize(), b.VocabSize())
	}
}

// sharedData is a folder beside the repository with T5's own tokenizer and real
// texts. Neither may be copied here.
func sharedData(t testing.TB, path ...string) string {
	t.Helper()
	p := filepath.Join(append([]string{"..", "..", "..", "shared", "data"}, path...)...)
	if _, err := os.Stat(p); err != nil {
		t.Skipf("real data is missing: %v", err)
	}
	return p
}

func TestT5(t *testing.T) {
	dir := sharedData(t, "t5-tokenizer")
	model, err := os.ReadFile(filepath.Join(dir, "spiece.model"))
	if err != nil {
		t.Fatal(err)
	}
	var g goldenFile
	readGoldens(t, "t5.json", &g)
	sum := sha256.Sum256(model)
	if got := hex.EncodeToString(sum[:]); got != g.Model {
		t.Fatalf("spiece.model has SHA-256 %s, the goldens are for %s", got, g.Model)
	}
	var digests [][32]byte
	for _, name := range []string{"spiece.model", "tokenizer.json"} {
		t.Run(name, func(t *testing.T) {
			tok := openFile(t, filepath.Join(dir, name))
			if tok.VocabSize() != 32100 || tok.PadID() != 0 || tok.EOSID() != 1 || tok.UnkID() != 2 {
				t.Errorf("size %d, pad %d, eos %d, unk %d; want 32100, 0, 1, 2",
					tok.VocabSize(), tok.PadID(), tok.EOSID(), tok.UnkID())
			}
			checkGoldens(t, tok, g)
			digests = append(digests, tok.Digest())
		})
	}
	if len(digests) == 2 && digests[0] != digests[1] {
		t.Errorf("digests differ: %x and %x", digests[0], digests[1])
	}
}

// TestT5RealText compares every line and every string of the real data with
// SentencePiece's ids, of which only digests are kept.
func TestT5RealText(t *testing.T) {
	root := sharedData(t, "fewglue")
	tok := openFile(t, sharedData(t, "t5-tokenizer", "spiece.model"))
	var want map[string]string
	readGoldens(t, "t5-real.json", &want)
	delete(want, "model")
	for name, sums := range want {
		var got []string
		for _, s := range realStrings(t, filepath.Join(root, filepath.FromSlash(name))) {
			got = append(got, idsDigest(tok.Encode(s), 6))
		}
		want := strings.Fields(sums)
		if len(got) != len(want) {
			t.Errorf("%s: %d strings, want %d", name, len(got), len(want))
			continue
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: ids of string %d have digest %s, want %s", name, i, got[i], want[i])
			}
		}
	}
}

// realStrings gives each line of a JSONL file and, sorted, the strings in it.
func realStrings(t testing.TB, path string) (all []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		var v any
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		var found []string
		collectStrings(v, &found)
		slices.Sort(found)
		all = append(append(all, string(line)), found...)
	}
	return all
}

func collectStrings(v any, into *[]string) {
	switch v := v.(type) {
	case string:
		*into = append(*into, v)
	case []any:
		for _, x := range v {
			collectStrings(x, into)
		}
	case map[string]any:
		for _, x := range v {
			collectStrings(x, into)
		}
	}
}
