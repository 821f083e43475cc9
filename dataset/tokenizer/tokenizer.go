package tokenizer

// Tokenizer is one vocabulary with its text normalizer. All methods may be
// called from several goroutines at once.
type Tokenizer interface {
	// Encode gives the ids of text, without a closing </s>. The result is never
	// nil. Special tokens written in the text become their ids.
	Encode(text string) []int32

	// Decode gives the text of ids as Transformers does with
	// skip_special_tokens=True. Ids outside the vocabulary are skipped too.
	Decode(ids []int32) string

	// VocabSize bounds the ids: Encode's lie in [0, VocabSize()). A model's
	// embedding may have more rows, for padding to a round number.
	VocabSize() int

	PadID() int32
	EOSID() int32
	UnkID() int32

	// Digest identifies everything that Encode and Decode depend on: pieces,
	// scores, kinds, normalizer and special tokens. A spiece.model and the
	// tokenizer.json made from it have the same digest.
	Digest() [32]byte
}

// eosKeeper is implemented by a tokenizer that adds no second </s> to ids that
// already end with one.
type eosKeeper interface {
	keepsEOS() bool
}

// EncodeTruncated encodes text as a model input: at most max ids, of which </s>
// is always the last, as Transformers does with truncation=True. Without room
// even for </s> (max < 1) it gives no ids.
//
// T5 appends </s> to a text that ends with a written </s>; ByT5 does not. Each
// is what its tokenizer does in Transformers.
func EncodeTruncated(t Tokenizer, text string, max int) []int32 {
	if max < 1 {
		return []int32{}
	}
	ids := t.Encode(text)
	if len(ids) > max-1 {
		ids = ids[:max-1]
	}
	if k, ok := t.(eosKeeper); ok && k.keepsEOS() && len(ids) > 0 && ids[len(ids)-1] == t.EOSID() {
		return ids
	}
	return append(ids, t.EOSID())
}
