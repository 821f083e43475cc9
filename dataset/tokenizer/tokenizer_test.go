package tokenizer

import (
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestConcurrent shares one tokenizer among goroutines; run it with -race.
func TestConcurrent(t *testing.T) {
	tok := openFile(t, "testdata/small.model")
	texts := []string{"the hard sep", "<extra_id_3> da нет 漢字", strings.Repeat("chai tré ", 500), ""}
	var want [][]int32
	for _, s := range texts {
		want = append(want, tok.Encode(s))
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				k := (g + i) % len(texts)
				if got := tok.Encode(texts[k]); !slices.Equal(got, want[k]) {
					t.Errorf("Encode(%.20q) = %v, want %v", texts[k], got, want[k])
					return
				}
				tok.Decode(want[k])
			}
		})
	}
	wg.Wait()
}

// TestAllocations: an Encode allocates its result and nothing per token.
func TestAllocations(t *testing.T) {
	tok := openFile(t, "testdata/small.model")
	for _, n := range []int{1, 10, 1000} {
		s := strings.Repeat("the hard sep <extra_id_1> ", n)
		tok.Encode(s)
		// A collection may empty the pool during the run, hence not exactly 1.
		if got := testing.AllocsPerRun(100, func() { tok.Encode(s) }); got > 2 && !raceEnabled {
			t.Errorf("%d bytes: %.1f allocations, want 1", len(s), got)
		}
	}
}

// TestResultIsOwn: what a caller does to the ids changes no later result.
func TestResultIsOwn(t *testing.T) {
	for _, tok := range []Tokenizer{openFile(t, "testdata/small.model"), NewByteLevel(125)} {
		ids := tok.Encode("the hard sep")
		want := slices.Clone(ids)
		clear(ids[:cap(ids)])
		if got := tok.Encode("the hard sep"); !slices.Equal(got, want) {
			t.Errorf("%T: %v, want %v", tok, got, want)
		}
	}
}

func TestDigestsDiffer(t *testing.T) {
	seen := map[[32]byte]string{}
	add := func(name string, tok Tokenizer) {
		if other, ok := seen[tok.Digest()]; ok {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[tok.Digest()] = name
	}
	for _, name := range []string{"small.model", "symbols.model", "bytes.model"} {
		add(name, openFile(t, "testdata/"+name))
	}
	add("125 sentinels", NewByteLevel(125))
	add("124 sentinels", NewByteLevel(124))
	for name, change := range map[string]func(*spec){
		"as it is":   func(*spec) {},
		"score":      func(s *spec) { s.pieces[10].score += 0.5 },
		"piece":      func(s *spec) { s.pieces[10].text += "x" },
		"kind":       func(s *spec) { s.pieces[10].kind = unused },
		"normalizer": func(s *spec) { s.norm.trimSpaces = false },
		"clean up":   func(s *spec) { s.cleanUp = true },
		"sentinels":  func(s *spec) { s.addExtraIDs(1) },
	} {
		s, err := parseModel(read(t, "testdata/small.model"))
		if err != nil {
			t.Fatal(err)
		}
		change(s)
		tok, err := newSentencePiece(s)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		add(name, tok)
	}
}

// TestCleanUp: the setting of tokenizer_config.json, as Transformers applies it.
func TestCleanUp(t *testing.T) {
	const in, want = "it 's  . do n't ' x ' we 've , you 're ! I 'm ?", "it's . don't'x'we've, you're! I'm?"
	if got := cleanUp(in); got != want {
		t.Errorf("cleanUp(%q) = %q, want %q", in, got, want)
	}
}

// TestTrie compares the double array with a linear search over keys that share
// prefixes, fill whole nodes and reach every byte.
func TestTrie(t *testing.T) {
	var keys []trieKey
	add := func(s string) { keys = append(keys, trieKey{text: s, id: int32(len(keys))}) }
	for a := range 256 {
		add(string([]byte{byte(a)}))
		add(string([]byte{'x', byte(a), 'y'}))
		add(string([]byte{byte(a), byte(a * 7), byte(a * 13), byte(a)}))
	}
	add(strings.Repeat("long", 200))
	want := slices.Clone(keys)
	tr, err := newTrie(keys)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{"", "xay", "xa", strings.Repeat("long", 201)}
	for _, k := range want {
		texts = append(texts, k.text, k.text+"z", k.text[:len(k.text)-1])
	}
	for _, s := range texts {
		var id, n int
		for _, k := range want {
			if strings.HasPrefix(s, k.text) && len(k.text) > n {
				id, n = int(k.id), len(k.text)
			}
		}
		if gotID, gotN := tr.longest(s); gotN != n || n > 0 && int(gotID) != id {
			t.Errorf("longest(%q) = %d, %d; want %d, %d", s, gotID, gotN, id, n)
		}
	}
	if tr.maxLen != 800 {
		t.Errorf("longest key %d bytes, want 800", tr.maxLen)
	}
}
