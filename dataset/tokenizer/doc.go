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
//   - It normalizes grapheme by grapheme: one of six bytes or more is looked up
//     character by character, a shorter one first as a whole, and what the table
//     holds for its beginning replaces all of it. SentencePiece takes the longest
//     rule at each byte. "é" with two more combining marks shows it.
//   - It searches word by word and adds scores in float64; SentencePiece adds
//     them along the whole text in float32. So ties of equal scores fall
//     differently: "xx x" against "x xx" in about one of 1,000 strings of random
//     letters, and in no text of the real data.
//   - After normalization it finds "</s>" and its like in the vocabulary:
//     full-width "＜/s＞" becomes the token </s>. SentencePiece never makes a
//     control symbol out of text.
//   - Its two loaders disagree with each other: the T5Tokenizer class splits words
//     at U+0085, AutoTokenizer on the same tokenizer.json does not.
//
// # Safety
//
// A Tokenizer does not change once opened and may be used by any number of
// goroutines at once. Encode and Decode accept every input and never panic.
// Opening a damaged or hostile file gives an error; the memory it takes stays
// in proportion to the file. Time is linear in the text: the longest piece of
// the vocabulary bounds the work at each character.
package tokenizer
