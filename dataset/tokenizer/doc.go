// Package tokenizer turns text into the token ids a T5 was pre-trained on, and
// back.
//
// Two kinds of vocabulary exist. T5's own is a SentencePiece unigram model
// (Kudo, 2018): the text is normalized by a table of Unicode rewrites, a space
// becomes "▁", and the sequence of pieces with the highest sum of scores wins.
// ByT5's is the bytes themselves.
//
//	Open, OpenFS, OpenFile    a directory as Transformers writes it, or one file
//	NewByteLevel              ByT5, which needs no file
//	EncodeTruncated           what an encoder reads: cut to a length, </s> last
//
// # What it agrees with
//
// On ordinary text Encode gives the ids of Google's SentencePiece 0.2.3, byte
// for byte of input, malformed UTF-8 included (each bad byte counts as U+FFFD).
// SentencePiece knows no special tokens in text; those are cut out first, as
// the fast T5 tokenizer of Transformers does: <pad>, </s>, <unk> and
// <extra_id_N> become one id each wherever they are written, and every stretch
// of text between two of them is encoded on its own, with its own "▁" in front.
//
// Decode follows Transformers' decode(skip_special_tokens=True): special tokens,
// <unk> among them, leave nothing behind, and the first piece loses its "▁".
//
// # Where the references disagree
//
// The fast tokenizer (Transformers 5.23, tokenizers 0.23) is a re-implementation
// and differs from SentencePiece on some ordinary text. SentencePiece wins here.
//
//   - It normalizes grapheme by grapheme, so it misses rewrites that cross a
//     grapheme boundary and, where a short grapheme is not in the table, tries
//     its characters one by one. Combining marks and emoji sequences show it.
//   - It searches word by word and adds scores in float64; SentencePiece adds
//     them along the whole text in float32, so that near ties fall differently.
//   - After normalization it finds "</s>" and the other special pieces in the
//     vocabulary: full-width "＜/s＞" becomes the token </s>. SentencePiece never
//     makes a control symbol out of text.
//   - It joins unknown characters only within a word, and keeps "▁" for a word
//     that the table rewrites to nothing.
//   - Its own two loaders disagree on control characters: the T5Tokenizer class
//     splits at U+0085, AutoTokenizer on the same tokenizer.json does not.
//
// # Safety
//
// A Tokenizer does not change once opened and may be used by any number of
// goroutines at once. Encode and Decode accept every input and never panic.
// Opening a damaged or hostile file gives an error; the memory it takes stays
// in proportion to the file. Time is linear in the text: the longest piece of
// the vocabulary bounds the work at each character.
package tokenizer
