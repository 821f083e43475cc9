package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"google.golang.org/protobuf/encoding/protowire"
)

const tinyJSON = `{
	"added_tokens": [
		{"id": 0, "content": "<pad>", "special": true},
		{"id": 1, "content": "</s>", "special": true},
		{"id": 2, "content": "<unk>", "special": true},
		{"id": 7, "content": "<new>", "lstrip": true, "rstrip": true, "special": false},
		{"id": 8, "content": "ab", "single_word": true, "special": false}],
	"normalizer": {"type": "Sequence", "normalizers": [
		{"type": "Strip", "strip_right": true},
		{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}]},
	"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": true},
	"decoder": {"type": "Metaspace", "replacement": "▁"},
	"model": {"type": "Unigram", "unk_id": 2, "vocab": [
		["<pad>", 0], ["</s>", 0], ["<unk>", 0], ["▁", -1], ["a", -2], ["b", -3.5], ["▁a", -2.25]]}
}`

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

// message encodes a protocol buffer message: uint64 and bool as varint, float32 as
// fixed32, string and []byte as bytes.
func message(fields ...any) (m []byte) {
	for i := 0; i < len(fields); i += 2 {
		num := protowire.Number(fields[i].(int))
		switch v := fields[i+1].(type) {
		case uint64:
			m = protowire.AppendVarint(protowire.AppendTag(m, num, protowire.VarintType), v)
		case string:
			m = protowire.AppendString(protowire.AppendTag(m, num, protowire.BytesType), v)
		case []byte:
			m = protowire.AppendBytes(protowire.AppendTag(m, num, protowire.BytesType), v)
		default:
			panic(fmt.Sprintf("field of type %T", v))
		}
	}
	return m
}

// modelOf is a spiece.model with T5's reserved pieces and "a", and more fields.
func modelOf(more ...any) string {
	return string(message(append([]any{
		1, message(1, "<pad>", 3, uint64(control)), 1, message(1, "</s>", 3, uint64(control)),
		1, message(1, "<unk>", 3, uint64(unknown)), 1, message(1, "a"),
	}, more...)...))
}

// charsmapOf is a normalizer_spec with a charsmap of a declared and a real size.
func charsmapOf(declared uint32, units int, replacements string) []byte {
	m := protowire.AppendFixed32(nil, declared)
	m = append(m, make([]byte, 4*units)...)
	return message(2, append(m, replacements...))
}

func TestOpenErrors(t *testing.T) {
	replaceJSON := func(old, new string) fstest.MapFS {
		if !strings.Contains(tinyJSON, old) {
			t.Fatalf("tinyJSON has no %s", old)
		}
		return fstest.MapFS{"tokenizer.json": file(strings.Replace(tinyJSON, old, new, 1))}
	}
	model := func(s string) fstest.MapFS { return fstest.MapFS{"spiece.model": file(s)} }
	config := func(s string) fstest.MapFS {
		return fstest.MapFS{"spiece.model": file(modelOf()), "tokenizer_config.json": file(s)}
	}
	byt5 := func(s string) fstest.MapFS { return fstest.MapFS{"tokenizer_config.json": file(s)} }
	small := string(read(t, "testdata/small.model"))
	const strip = `{"type": "Strip", "strip_right": true}`
	for _, c := range []struct {
		name string
		fsys fs.FS
		want string
	}{
		{"nothing", fstest.MapFS{}, "found none of spiece.model, tokenizer.json and tokenizer_config.json"},
		{"config alone", byt5(`{"tokenizer_class":"T5Tokenizer"}`), `tokenizer_class "T5Tokenizer"`},
		{"config malformed", byt5(`{`), "tokenizer_config.json: unexpected end"},
		{"extra_ids", config(`{"extra_ids":-1}`), "extra_ids -1, want 0 to"},
		{"huge extra_ids", config(`{"extra_ids":2000000000}`), "extra_ids 2000000000, want 0 to"},
		{"added key", config(`{"added_tokens_decoder":{"x":{"content":"y"}}}`), `key "x", want an id`},
		{"added keys", config(`{"added_tokens_decoder":{"y":{},"x":{},"-1":{}}}`), `key "-1", want an id`},
		{"added gap", config(`{"added_tokens_decoder":{"5":{"content":"y"}}}`),
			`"y" has id 5, want one of the 4 pieces or the next`},
		{"added other", config(`{"added_tokens_decoder":{"3":{"content":"y"}}}`),
			`"y" has id 3, which is the piece "a"`},
		{"added empty", config(`{"added_tokens_decoder":{"4":{"content":""}}}`), "added token 4 is empty"},
		{"added twice", config(`{"added_tokens_decoder":{"4":{"content":"y"},"5":{"content":"y"}}}`), `both "y"`},
		{"byt5 pad", byt5(`{"tokenizer_class":"ByT5Tokenizer","added_tokens_decoder":{"0":{"content":"x"}}}`),
			`special token 0 is "x", want "<pad>"`},
		{"byt5 gap", byt5(`{"tokenizer_class":"ByT5Tokenizer","added_tokens_decoder":{"0":{"content":"<pad>"},` +
			`"1":{"content":"</s>"},"2":{"content":"<unk>"},"260":{"content":"x"}}}`), "has id 260, want 259"},
		{"byt5 few", byt5(`{"tokenizer_class":"ByT5Tokenizer","added_tokens_decoder":{"0":{"content":"<pad>"}}}`),
			"1 special tokens, want at least"},

		{"truncated", model(small[:len(small)-1]), "unexpected EOF"},
		{"truncated early", model(small[:100]), "unexpected EOF"},
		{"text", model("hello"), "SentencePiece model: field"},
		{"empty", model(""), "none of its pieces is the unknown piece"},
		{"BPE", model(modelOf(2, message(3, uint64(2)))), "type 2, want 1 (unigram)"},
		{"wire type", model(string(message(1, uint64(5)))), "field 1 has wire type 0, want bytes"},
		{"score type", model(modelOf(1, message(1, "b", 2, "x"))), "piece 4: field 2 has wire type 2, want fixed32"},
		{"no pad", model(string(message(1, message(1, "<unk>", 3, uint64(2)), 1, message(1, "a")))),
			`no control piece "<pad>"`},
		{"two unknown", model(modelOf(1, message(1, "<u>", 3, uint64(2)))), "pieces 2 and 4 are both unknown"},
		{"twice", model(modelOf(1, message(1, "a"))), `pieces 3 and 4 are both "a"`},
		{"empty piece", model(modelOf(1, message(1, ""))), "piece 4 is empty"},
		{"long piece", model(modelOf(1, message(1, strings.Repeat("x", 8000)))), "piece 4 is 8000 bytes long"},
		{"NUL", model(modelOf(1, message(1, "a\x00b"))), "contains a NUL byte"},
		{"NaN", model(modelOf(1, protowire.AppendFixed32(append(message(1, "b"), 2<<3|5), 0x7fc00000))), "score NaN"},
		{"byte without fallback", model(modelOf(1, message(1, "<0x41>", 3, uint64(6)))), "byte_fallback is off"},
		{"fallback without bytes", model(modelOf(2, message(35, uint64(1)))), `there is no piece "<0x00>"`},
		{"bad byte", model(modelOf(2, message(35, uint64(1)), 1, message(1, "<0xg1>", 3, uint64(6)))),
			"want <0x00> to <0xFF>"},
		{"only control", model(string(message(1, message(1, "<pad>", 3, uint64(3)),
			1, message(1, "</s>", 3, uint64(3)), 1, message(1, "<unk>", 3, uint64(2))))),
			"no piece can be made from text"},
		{"charsmap short", model(modelOf(3, message(2, "ab"))), "precompiled_charsmap is 2 bytes"},
		{"charsmap size", model(modelOf(3, charsmapOf(4096, 256, "\x00"))),
			"a trie of 4096 bytes, want fewer than the 1025"},
		{"charsmap units", model(modelOf(3, charsmapOf(1000, 256, "\x00"))), "want a positive multiple of 1024"},
		{"charsmap end", model(modelOf(3, charsmapOf(1024, 256, "a"))), "do not end with a NUL"},

		{"json malformed", fstest.MapFS{"tokenizer.json": file(tinyJSON[:200])}, "tokenizer.json: unexpected end"},
		{"json BPE", replaceJSON(`"Unigram"`, `"BPE"`), `model of type "BPE", want Unigram`},
		{"json no unk", replaceJSON(`"unk_id": 2, `, ``), "no unk_id"},
		{"json unk", replaceJSON(`"unk_id": 2`, `"unk_id": 7`), "unk_id is 7, want an id of its 7 pieces"},
		{"json entry", replaceJSON(`["a", -2]`, `["a"]`), "has 1 members"},
		{"json score", replaceJSON(`["a", -2]`, `["a", "x"]`), `score of the vocabulary entry "a"`},
		{"json huge score", replaceJSON(`["a", -2]`, `["a", -1e300]`), `score of the vocabulary entry "a"`},
		{"json normalizer", replaceJSON(`"Strip"`, `"Lowercase"`), `step of type "Lowercase"`},
		{"json replace", replaceJSON(`" {2,}"`, `"x"`), `replaces "x"`},
		{"json pre-tokenizer",
			replaceJSON(`"Metaspace", "replacement": "▁", "add`, `"ByteLevel", "replacement": "▁", "add`),
			`step of type "ByteLevel"`},
		{"json replacement", replaceJSON(`"replacement": "▁", "add`, `"replacement": "_", "add`),
			`replacement "_", want "▁"`},
		{"json prepend", replaceJSON(`"add_prefix_space": true`, `"prepend_scheme": "first"`),
			`prepend_scheme "first"`},
		{"json decoder", replaceJSON(`"decoder": {"type": "Metaspace"`, `"decoder": {"type": "WordPiece"`),
			`decoder of type "WordPiece"`},
		{"json base64",
			replaceJSON(strip, `{"type": "Precompiled", "precompiled_charsmap": "?"}`), "base64"},
		{"json charsmap",
			replaceJSON(strip, `{"type": "Precompiled", "precompiled_charsmap": "AAAA"}`),
			"precompiled_charsmap is 3 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tok, err := OpenFS(c.fsys, "DIR")
			if err == nil {
				t.Fatalf("opened %T, want an error about %q", tok, c.want)
			}
			if s := err.Error(); !strings.Contains(s, c.want) || !strings.HasPrefix(s, "open tokenizer DIR: ") ||
				strings.Contains(s, "\n") {
				t.Errorf("error %q, want one line that starts with the directory and says %q", s, c.want)
			}
		})
	}
}

// TestCharsmapBounds damages each word of a real charsmap's trie: whatever still
// opens must not search outside its tables.
func TestCharsmapBounds(t *testing.T) {
	s, err := parseModel(read(t, "testdata/small.model"))
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, word := range []byte{0x00, 0x7f, 0x80, 0xff} {
		for i := 4; i < len(s.norm.charsmap)-1; i += 5 {
			broken := slices.Clone(s.norm.charsmap)
			broken[i] = word
			m, err := parseCharsmap(broken)
			if err != nil {
				refused++
				continue
			}
			for _, p := range probes {
				for j := range len(p) {
					m.longest(p[j:])
				}
			}
		}
	}
	if refused == 0 {
		t.Error("no damage was refused")
	}
}

func TestOpenOrder(t *testing.T) {
	small := read(t, "testdata/small.model")
	byt5 := file(`{"tokenizer_class":"ByT5Tokenizer"}`)
	for _, c := range []struct {
		name string
		fsys fstest.MapFS
		size int
	}{
		{"model first", fstest.MapFS{
			"spiece.model": {Data: small}, "tokenizer.json": file(`{"model": 0}`), "tokenizer_config.json": byt5,
		}, 700},
		{"then json", fstest.MapFS{"tokenizer.json": file(tinyJSON), "tokenizer_config.json": byt5}, 9},
		{"then bytes", fstest.MapFS{"tokenizer_config.json": byt5}, 384},
		{"sentinels", fstest.MapFS{"spiece.model": {Data: small}, "tokenizer_config.json": file(`{"extra_ids":0}`)},
			600},
		{"bytes, sentinels",
			fstest.MapFS{"tokenizer_config.json": file(`{"tokenizer_class":"ByT5Tokenizer","extra_ids":7}`)}, 266},
		{"bytes, list", fstest.MapFS{"tokenizer_config.json": file(`{"tokenizer_class":"ByT5Tokenizer","extra_ids":0,` +
			`"extra_special_tokens":["<extra_id_0>",{"content":"<extra_id_1>"}]}`)}, 261},
	} {
		tok, err := OpenFS(c.fsys, c.name)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if tok.VocabSize() != c.size {
			t.Errorf("%s: %d ids, want %d", c.name, tok.VocabSize(), c.size)
		}
	}
}

func TestOpenDirectory(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "no")
	if _, err := Open(missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("Open of a missing directory: %v, want an error that names it", err)
	}
	if _, err := OpenFile(filepath.Join(dir, "no.model")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenFile of a missing file: %v, want fs.ErrNotExist", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "spiece.model"), read(t, "testdata/small.model"), 0o644); err != nil {
		t.Fatal(err)
	}
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if b := openFile(t, "testdata/small.model"); a.Digest() != b.Digest() {
		t.Error("Open and OpenFile give different tokenizers")
	}
}

// TestAddedTokens: tokens of one's own, in a tokenizer.json and in a config.
func TestAddedTokens(t *testing.T) {
	var cfg struct {
		Added map[string]any `json:"added_tokens_decoder"`
	}
	cfg.Added = map[string]any{
		"0": map[string]any{"content": "<pad>"}, "1": map[string]any{"content": "</s>"},
		"2": map[string]any{"content": "<unk>"},
		"4": map[string]any{"content": "<new>", "lstrip": true, "rstrip": true},
		"5": map[string]any{"content": "ab", "single_word": true},
	}
	data, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		fsys fstest.MapFS
		in   string
		want []int32
		text string
	}{
		{"json", fstest.MapFS{"tokenizer.json": file(tinyJSON)}, "a <new> a", []int32{6, 7, 6}, "a<new> a"},
		{"json word", fstest.MapFS{"tokenizer.json": file(tinyJSON)}, "ab aab ab.", []int32{8, 6, 4, 5, 8, 3, 2},
			"ab aabab "},
		{"model",
			fstest.MapFS{"spiece.model": file(modelOf(1, message(1, "▁"))[:]),
				"tokenizer_config.json": file(strings.NewReplacer(`"5"`, `"6"`, `"4"`, `"5"`).Replace(string(data)))},
			"a <new>ab </s>", []int32{4, 3, 5, 6, 1}, ""},
	} {
		tok, err := OpenFS(c.fsys, c.name)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := tok.Encode(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%s: Encode(%q) = %v, want %v", c.name, c.in, got, c.want)
		}
		if got := tok.Decode(c.want); c.text != "" && got != c.text {
			t.Errorf("%s: Decode(%v) = %q, want %q", c.name, c.want, got, c.text)
		}
	}
}

// TestAddedTokensElsewhere: tokens that were added to a T5 tokenizer count whichever of the files
// of the directory has them, with their flags.
func TestAddedTokensElsewhere(t *testing.T) {
	const config = `{"tokenizer_class": "T5Tokenizer", "extra_ids": 0}`
	const unigram = `"pre_tokenizer": {"type": "Metaspace", "replacement": "▁"},
		"model": {"type": "Unigram", "unk_id": 2, "vocab": [["<pad>", 0], ["</s>", 0], ["<unk>", 0], ["a", 0]]}`
	for _, c := range []struct {
		name  string
		files fstest.MapFS
		want  []int32 // of "a{ a"
		err   string
	}{
		{"none", fstest.MapFS{"spiece.model": file(modelOf()), "tokenizer_config.json": file(config)},
			[]int32{3, 2, 3}, ""},
		{"tokenizer.json", fstest.MapFS{
			"spiece.model":          file(modelOf()),
			"tokenizer_config.json": file(config),
			"tokenizer.json": file(`{"added_tokens": [
				{"id": 0, "content": "<pad>"}, {"id": 4, "content": "{"}]}`),
		}, []int32{3, 4, 3}, ""},
		{"added_tokens.json", fstest.MapFS{
			"spiece.model":          file(modelOf()),
			"tokenizer_config.json": file(config),
			"added_tokens.json":     file(`{"{": 4}`),
		}, []int32{3, 4, 3}, ""},
		{"tokenizer_config.json beside tokenizer.json", fstest.MapFS{
			"tokenizer_config.json": file(`{"added_tokens_decoder": {"4": {"content": "{"}}}`),
			"tokenizer.json": file(`{"added_tokens": [{"id": 0, "content": "<pad>", "special": true},
				{"id": 1, "content": "</s>", "special": true}], ` + unigram + `}`),
		}, []int32{3, 4, 3}, ""},
		{"other text", fstest.MapFS{
			"spiece.model":          file(modelOf()),
			"tokenizer_config.json": file(config),
			"tokenizer.json":        file(`{"added_tokens": [{"id": 3, "content": "{"}]}`),
		}, nil, `tokenizer.json: added token "{" has id 3, which is the piece "a"`},
		{"other id", fstest.MapFS{
			"spiece.model":          file(modelOf()),
			"tokenizer_config.json": file(`{"added_tokens_decoder": {"4": {"content": "{"}}}`),
			"tokenizer.json":        file(`{"added_tokens": [{"id": 5, "content": "{"}]}`),
		}, nil, `tokenizer.json: added token "{" has id 5, but "{" has id 4 in another file`},
		{"a gap", fstest.MapFS{
			"spiece.model":          file(modelOf()),
			"tokenizer_config.json": file(config),
			"added_tokens.json":     file(`{"{": 9}`),
		}, nil, `added_tokens.json: added token "{" has id 9, want one of the 4 pieces or the next id`},
		{"byte level", fstest.MapFS{
			"tokenizer_config.json": file(`{"tokenizer_class": "ByT5Tokenizer"}`),
			"added_tokens.json":     file(`{"{": 384}`),
		}, nil, `added_tokens.json: added token "{" has id 384, which the byte level does not have`},
		{"not fetched", fstest.MapFS{
			"spiece.model": file("version https://git-lfs.github.com/spec/v1\noid sha256:d6\nsize 791656\n"),
		}, nil, "spiece.model is a Git LFS pointer"},
	} {
		tok, err := OpenFS(c.files, c.name)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		unknown := func(id int32) bool { return id == tok.UnkID() && c.want[1] != 2 }
		got := slices.DeleteFunc(tok.Encode("a{ a"), unknown)
		if c.want[1] != 2 && !slices.Equal(got, c.want) {
			t.Errorf("%s: ids %v, want %v", c.name, got, c.want)
		}
		if c.want[1] == 2 && slices.Contains(got, 4) {
			t.Errorf("%s: ids %v, want no added token", c.name, got)
		}
	}
}
