package tokenizer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// realTexts gives every string of the real data in the order of the files.
func realTexts(b *testing.B) (texts []string) {
	files, err := filepath.Glob(filepath.Join(sharedData(b, "fewglue"), "*", "*.jsonl"))
	if err != nil || len(files) == 0 {
		b.Fatalf("found %d files: %v", len(files), err)
	}
	for _, f := range files {
		texts = append(texts, realStrings(b, f)...)
	}
	return texts
}

func benchmarkEncode(b *testing.B, tok Tokenizer, texts []string) {
	tokens, size := 0, 0
	for _, s := range texts {
		tokens += len(tok.Encode(s))
		size += len(s)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		for _, s := range texts {
			tok.Encode(s)
		}
	}
	b.ReportMetric(float64(tokens)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}

func BenchmarkEncode(b *testing.B) {
	b.Run("t5", func(b *testing.B) {
		tok := openFile(b, sharedData(b, "t5-tokenizer", "spiece.model"))
		benchmarkEncode(b, tok, realTexts(b))
	})
	b.Run("byt5", func(b *testing.B) {
		benchmarkEncode(b, NewByteLevel(125), realTexts(b))
	})
	for _, n := range []int{1_000, 10_000, 100_000, 1_000_000} {
		// The rate must not fall with the length.
		b.Run(fmt.Sprintf("one letter %d", n), func(b *testing.B) {
			tok := openFile(b, sharedData(b, "t5-tokenizer", "spiece.model"))
			benchmarkEncode(b, tok, []string{strings.Repeat("a", n)})
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, name := range []string{"spiece.model", "tokenizer.json"} {
		data, err := os.ReadFile(sharedData(b, "t5-tokenizer", name))
		if err != nil {
			b.Fatal(err)
		}
		open := openModel
		if name == "tokenizer.json" {
			open = openJSON
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for range b.N {
				if _, err := open(data, &config{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
