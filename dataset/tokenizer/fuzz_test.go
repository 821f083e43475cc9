package tokenizer

import (
	"os"
	"testing"
	"unicode/utf8"
)

// Texts that reach every path of Encode.
var probes = []string{
	"", " ", "a", "The cat  sat.", "漢字 <extra_id_0> é </s>", "e\u0301\u0301", "\x00\xff\xe2\x96",
	"<sep>▁hard ﬁ\u3000x", "<pad><unk>",
}

func FuzzParseModel(f *testing.F) {
	for _, name := range []string{"small", "symbols", "bytes"} {
		f.Add(read(f, "testdata/"+name+".model"))
	}
	f.Add([]byte{})
	f.Add([]byte("\x0a\x02\x0a\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := openModel(data, &config{})
		if (tok == nil) == (err == nil) {
			t.Fatalf("tokenizer %v, error %v: want just one of them", tok, err)
		}
		if err == nil {
			checkInvariants(t, tok, probes...)
		}
	})
}

func FuzzParseJSON(f *testing.F) {
	f.Add(read(f, "testdata/small.tokenizer.json"), []byte(`{"extra_ids":3}`))
	f.Add([]byte(tinyJSON), []byte(`{"tokenizer_class":"ByT5Tokenizer","clean_up_tokenization_spaces":true}`))
	f.Add([]byte(`{}`), []byte(`{"added_tokens_decoder":{"0":{"content":"<pad>"}}}`))
	f.Fuzz(func(t *testing.T, data, configData []byte) {
		cfg, err := parseConfig(configData)
		if err != nil {
			cfg = &config{}
		}
		tok, err := openJSON(data, cfg)
		if (tok == nil) == (err == nil) {
			t.Fatalf("tokenizer %v, error %v: want just one of them", tok, err)
		}
		if err == nil {
			checkInvariants(t, tok, probes...)
		}
		if cfg.ExtraIDs == nil || *cfg.ExtraIDs < 1000 { // more is slow, nothing else
			if tok, err := cfg.byteLevel(); err == nil {
				checkInvariants(t, tok, probes...)
			}
		}
	})
}

func FuzzEncode(f *testing.F) {
	for _, s := range probes {
		f.Add(s)
	}
	var toks []Tokenizer
	for _, name := range []string{"small.model", "small.tokenizer.json", "symbols.model", "bytes.model"} {
		toks = append(toks, openFile(f, "testdata/"+name))
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, tok := range toks {
			checkInvariants(t, tok, text)
		}
		checkInvariants(t, NewByteLevel(125), text)
		// Every byte that is not a special token or white space beside one is kept.
		bytes := NewByteLevel(0)
		if ids := bytes.Encode(text); utf8.ValidString(text) && len(ids) == len(text) && bytes.Decode(ids) != text {
			t.Errorf("byte level: %q came back as %q", text, bytes.Decode(ids))
		}
	})
}

// checkInvariants holds for every tokenizer and text.
func checkInvariants(t *testing.T, tok Tokenizer, texts ...string) {
	t.Helper()
	for _, text := range texts {
		ids := tok.Encode(text)
		if ids == nil {
			t.Fatalf("Encode(%q) is nil", text)
		}
		for _, id := range ids {
			if id < 0 || int(id) >= tok.VocabSize() {
				t.Fatalf("Encode(%q) has id %d, want one below %d", text, id, tok.VocabSize())
			}
		}
		again := tok.Encode(text)
		if idsDigest(ids, 32) != idsDigest(again, 32) {
			t.Fatalf("Encode(%q) = %v, then %v", text, ids, again)
		}
		tok.Decode(append(ids, -1, 1<<30))
		cut := EncodeTruncated(tok, text, 3)
		if len(cut) > 3 || len(cut) == 0 || cut[len(cut)-1] != tok.EOSID() {
			t.Fatalf("EncodeTruncated(%q, 3) = %v, want at most 3 ids, %d last", text, cut, tok.EOSID())
		}
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
