package tokenizer

import (
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// scored encodes a piece of a spiece.model.
func scored(text string, score float32, k kind) []byte {
	m := message(1, text, 3, uint64(k))
	return protowire.AppendFixed32(protowire.AppendTag(m, 2, protowire.Fixed32Type), math.Float32bits(score))
}

// TestSearch holds SentencePiece's choices on vocabularies made for one question
// each. The wanted ids are SentencePiece 0.2.3's. Ids count from 3.
func TestSearch(t *testing.T) {
	bare := message(3, uint64(0), 4, uint64(0)) // no dummy prefix, spaces kept
	for _, c := range []struct {
		name   string
		pieces [][]byte
		in     string
		want   []int32
	}{
		{"an unknown character costs 10 more than the worst piece",
			[][]byte{scored("ab", -14, normal), scored("a", 9.5, normal)}, "ab", []int32{3}},
		{"and no more than that",
			[][]byte{scored("ab", -14, normal), scored("a", 10.5, normal)}, "ab", []int32{4, 2}},
		{"the first of equal paths stays",
			[][]byte{scored("x", -1, normal), scored("xx", -1.5, normal)}, "xxx", []int32{3, 4}},
		{"a control piece is not made from text, an unused one neither",
			[][]byte{scored("a", -1, normal), scored("b", -1, normal), scored("ab", 0, control),
				scored("ba", 0, unused)},
			"abab", []int32{3, 4, 3, 4}},
		{"a symbol counts a tenth for each byte but one",
			[][]byte{scored("ab", 0, userDefined), scored("c", -0.5, normal), scored("abc", -1, normal),
				scored("é", 0, userDefined), scored("éc", -0.45, normal)},
			"abcéc", []int32{3, 4, 6, 4}},
		{"a long enough piece beats a symbol",
			[][]byte{scored("ab", 0, userDefined), scored("c", -0.5, normal), scored("abc", -0.25, normal)},
			"abc", []int32{5}},
		{"the best sum of symbols",
			[][]byte{scored("a", 0, userDefined), scored("ab", 0, userDefined), scored("aba", 0, userDefined),
				scored("b", -1, normal)},
			"ababab", []int32{4, 4, 4}},
		{"unknown characters side by side are one",
			[][]byte{scored("a", -1, normal)}, "xyazx\xff漢a", []int32{2, 3, 2, 3}},
		{"scores stay fine behind a long text", // float32 alone would make x+y and xy equal there
			[][]byte{scored("x", -1, normal), scored("y", -1, normal), scored("xy", -2.1, normal)},
			strings.Repeat("?", 250_000) + "xy", []int32{2, 3, 4}},
		{"spaces are kept",
			[][]byte{scored("▁", -1, normal), scored("a", -1, normal)}, "  a  ", []int32{3, 3, 4, 3, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fields := []any{
				1, message(1, "<pad>", 3, uint64(control)),
				1, message(1, "</s>", 3, uint64(control)),
				1, message(1, "<unk>", 3, uint64(unknown)),
				3, bare,
			}
			for _, p := range c.pieces {
				fields = append(fields, 1, p)
			}
			tok, err := openModel(message(fields...), &config{})
			if err != nil {
				t.Fatal(err)
			}
			if got := tok.Encode(c.in); !slices.Equal(got, c.want) {
				t.Errorf("Encode(%.40q) = %v, want %v", c.in, got, c.want)
			}
		})
	}
}
