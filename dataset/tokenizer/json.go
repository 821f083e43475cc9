package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
)

// tokenizerJSON is what a T5 tokenizer.json of Hugging Face's tokenizers holds.
// Truncation, padding and the post-processor do not bear on Encode.
type tokenizerJSON struct {
	AddedTokens  []addedToken `json:"added_tokens"`
	Normalizer   *step        `json:"normalizer"`
	PreTokenizer *step        `json:"pre_tokenizer"`
	Decoder      *step        `json:"decoder"`
	Model        struct {
		Type         string       `json:"type"`
		UnkID        *int32       `json:"unk_id"`
		Vocab        []vocabEntry `json:"vocab"`
		ByteFallback bool         `json:"byte_fallback"`
	} `json:"model"`
}

// step is a normalizer, pre-tokenizer or decoder: the union of the kinds that
// occur in T5's.
type step struct {
	Type          string `json:"type"`
	Normalizers   []step `json:"normalizers"`
	PreTokenizers []step `json:"pretokenizers"`

	Charsmap []byte `json:"precompiled_charsmap"` // Precompiled; base64

	Pattern struct { // Replace
		Regex  string
		String string
	} `json:"pattern"`
	Content string `json:"content"`

	Replacement    string `json:"replacement"` // Metaspace
	AddPrefixSpace *bool  `json:"add_prefix_space"`
	PrependScheme  string `json:"prepend_scheme"`
}

// vocabEntry is a pair [piece, score].
type vocabEntry piece

func (e *vocabEntry) UnmarshalJSON(data []byte) error {
	var pair []json.RawMessage
	if err := json.Unmarshal(data, &pair); err != nil {
		return err
	}
	if len(pair) != 2 {
		return fmt.Errorf("vocabulary entry has %d members, want a piece and its score", len(pair))
	}
	if err := json.Unmarshal(pair[0], &e.text); err != nil {
		return fmt.Errorf("vocabulary entry's piece: %w", err)
	}
	// SentencePiece's scores are float32; the file has them in decimal, exactly.
	if err := json.Unmarshal(pair[1], &e.score); err != nil {
		return fmt.Errorf("score of the vocabulary entry %q: %w", e.text, err)
	}
	return nil
}

// parseJSON reads a tokenizer.json and gives the SentencePiece model that it was
// made from. What the file cannot say, it takes to be as in T5: surplus spaces
// are dropped, and special tokens are control pieces.
func parseJSON(data []byte) (*spec, error) {
	var file tokenizerJSON
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	if file.Model.Type != "Unigram" {
		return nil, fmt.Errorf("tokenizer.json has a model of type %q, want Unigram", file.Model.Type)
	}
	s := &spec{byteFallback: file.Model.ByteFallback, norm: normSpec{trimSpaces: true}}
	if file.Model.UnkID == nil {
		return nil, errors.New("tokenizer.json's model has no unk_id, which T5 needs")
	}
	s.unk = *file.Model.UnkID
	s.pieces = make([]piece, len(file.Model.Vocab))
	for i, e := range file.Model.Vocab {
		s.pieces[i] = piece{text: e.text, score: e.score, kind: normal}
		if _, ok := byteOf(e.text); ok && s.byteFallback {
			s.pieces[i].kind = byteKind
		}
	}
	if s.unk < 0 || int(s.unk) >= len(s.pieces) {
		return nil, fmt.Errorf("tokenizer.json's unk_id is %d, want an id of its %d pieces", s.unk, len(s.pieces))
	}
	s.pieces[s.unk].kind = unknown
	for _, t := range file.AddedTokens {
		if err := s.addToken(t); err != nil {
			return nil, fmt.Errorf("tokenizer.json: %w", err)
		}
	}
	if file.Normalizer != nil {
		if err := s.norm.addNormalizer(*file.Normalizer); err != nil {
			return nil, fmt.Errorf("tokenizer.json's normalizer: %w", err)
		}
	}
	if file.PreTokenizer == nil {
		return nil, errors.New("tokenizer.json has no pre_tokenizer, want Metaspace")
	}
	if err := s.norm.addPreTokenizer(*file.PreTokenizer); err != nil {
		return nil, fmt.Errorf("tokenizer.json's pre_tokenizer: %w", err)
	}
	if !s.norm.escapeSpaces {
		return nil, errors.New("tokenizer.json's pre_tokenizer has no Metaspace, which T5 needs")
	}
	if d := file.Decoder; d != nil && d.Type != "Metaspace" {
		return nil, fmt.Errorf("tokenizer.json has a decoder of type %q, want Metaspace", d.Type)
	}
	return s, nil
}

func (n *normSpec) addNormalizer(s step) error {
	switch s.Type {
	case "Sequence":
		for _, s := range s.Normalizers {
			if err := n.addNormalizer(s); err != nil {
				return err
			}
		}
	case "Precompiled":
		if n.charsmap != nil {
			return errors.New("it has two Precompiled steps, want one")
		}
		n.charsmap = s.Charsmap
	case "Strip": // dropping surplus spaces does this
	case "Replace":
		if s.Pattern.Regex != " {2,}" || s.Content != space && s.Content != " " {
			return fmt.Errorf("it replaces %q%q by %q, want only runs of spaces by one",
				s.Pattern.Regex, s.Pattern.String, s.Content)
		}
	default:
		return fmt.Errorf("step of type %q, want Precompiled, Strip or Replace", s.Type)
	}
	return nil
}

func (n *normSpec) addPreTokenizer(s step) error {
	switch s.Type {
	case "Sequence":
		for _, s := range s.PreTokenizers {
			if err := n.addPreTokenizer(s); err != nil {
				return err
			}
		}
	case "WhitespaceSplit": // no piece of T5's spans two words
	case "Metaspace":
		if s.Replacement != space {
			return fmt.Errorf("step Metaspace with the replacement %q, want %q", s.Replacement, space)
		}
		n.escapeSpaces = true
		switch {
		case s.PrependScheme == "always", s.PrependScheme == "" && (s.AddPrefixSpace == nil || *s.AddPrefixSpace):
			n.dummyPrefix = true
		case s.PrependScheme == "never", s.PrependScheme == "":
		default:
			return fmt.Errorf("step Metaspace with the prepend_scheme %q, want always or never", s.PrependScheme)
		}
	default:
		return fmt.Errorf("step of type %q, want Metaspace or WhitespaceSplit", s.Type)
	}
	return nil
}
