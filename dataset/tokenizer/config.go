package tokenizer

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const byT5Class = "ByT5Tokenizer"

// config is what matters of a tokenizer_config.json. The zero config is that of a
// directory without one.
type config struct {
	Class         string                `json:"tokenizer_class"`
	ExtraIDs      *int                  `json:"extra_ids"`
	CleanUp       bool                  `json:"clean_up_tokenization_spaces"`
	Added         map[string]addedToken `json:"added_tokens_decoder"` // by id in decimal
	ExtraSpecial  json.RawMessage       `json:"extra_special_tokens"`
	Additional    json.RawMessage       `json:"additional_special_tokens"`
	tokens        []addedToken          // Added in order of id
	sentinelNames int                   // how many <extra_id_N> the two lists name
	elsewhere     []addedToken          // in order of id, that elsewhereFile has
	elsewhereFile string
}

func parseConfig(data []byte) (*config, error) {
	c := &config{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("%s: %w", configFile, err)
	}
	for _, key := range slices.Sorted(maps.Keys(c.Added)) {
		id, err := strconv.ParseInt(key, 10, 32)
		if err != nil || id < 0 {
			return nil, fmt.Errorf("%s: added_tokens_decoder has the key %q, want an id", configFile, key)
		}
		t := c.Added[key]
		t.ID = int32(id)
		c.tokens = append(c.tokens, t)
	}
	// Two keys may spell one id, such as "1" and "01": the order of such tokens is that of their
	// keys.
	slices.SortStableFunc(c.tokens, func(a, b addedToken) int { return cmp.Compare(a.ID, b.ID) })
	if c.ExtraIDs != nil && (*c.ExtraIDs < 0 || *c.ExtraIDs > maxExtraIDs) {
		return nil, fmt.Errorf("%s has extra_ids %d, want 0 to %d", configFile, *c.ExtraIDs, maxExtraIDs)
	}
	c.sentinelNames = max(countSentinels(c.ExtraSpecial), countSentinels(c.Additional))
	return c, nil
}

// readAdded reads the added tokens of the files beside tokenizer_config.json: of tokenizer.json or,
// where neither has any, of added_tokens.json, in which they have no flags.
func (c *config) readAdded(fsys fs.FS) error {
	data, err := readFile(fsys, jsonFile)
	if err == nil {
		var file struct {
			Added []addedToken `json:"added_tokens"`
		}
		if err := json.Unmarshal(data, &file); err != nil {
			return fmt.Errorf("%s: %w", jsonFile, err)
		}
		c.elsewhere, c.elsewhereFile = file.Added, jsonFile
	}
	if errors.Is(err, fs.ErrNotExist) && len(c.tokens) == 0 {
		var ids map[string]int32
		if data, err = readFile(fsys, addedFile); err == nil {
			if err := json.Unmarshal(data, &ids); err != nil {
				return fmt.Errorf("%s: %w", addedFile, err)
			}
			for text, id := range ids {
				c.elsewhere = append(c.elsewhere, addedToken{ID: id, Content: text})
			}
			c.elsewhereFile = addedFile
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	slices.SortFunc(c.elsewhere, func(a, b addedToken) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), strings.Compare(a.Content, b.Content))
	})
	return nil
}

// countSentinels counts the <extra_id_N> in a list of tokens, each a string or an
// object with its content.
func countSentinels(list json.RawMessage) int {
	var tokens []json.RawMessage
	if json.Unmarshal(list, &tokens) != nil {
		return 0 // a map of named tokens, or nothing: no sentinels either way
	}
	n := 0
	for _, raw := range tokens {
		var text string
		if json.Unmarshal(raw, &text) != nil {
			var t addedToken
			if json.Unmarshal(raw, &t) != nil {
				continue
			}
			text = t.Content
		}
		if strings.HasPrefix(text, "<extra_id_") {
			n++
		}
	}
	return n
}

// extraIDs is the number of sentinels. Transformers writes extra_ids 0 for a
// ByT5Tokenizer with 125 of them, so the lists of tokens come first.
func (c *config) extraIDs(otherwise int) int {
	switch {
	case c.sentinelNames > 0:
		return c.sentinelNames
	case c.ExtraIDs != nil:
		return *c.ExtraIDs
	}
	return otherwise
}

// addTokens completes a SentencePiece model, which knows no special tokens, by
// those of T5: the ones the config lists, else its three and the sentinels.
func (c *config) addTokens(s *spec) error {
	if len(c.tokens) > 0 {
		for _, t := range c.tokens {
			if err := s.addToken(t); err != nil {
				return fmt.Errorf("%s: %w", configFile, err)
			}
		}
		return nil
	}
	for i, p := range s.pieces {
		if (p.kind == control || p.kind == unknown) &&
			(p.text == padPiece || p.text == eosPiece || p.text == unkPiece) {
			s.added = append(s.added, addedToken{ID: int32(i), Content: p.text, Special: true})
		}
	}
	s.addExtraIDs(c.extraIDs(defaultExtraIDs))
	return nil
}

// byteLevel is the ByT5Tokenizer that the config describes.
func (c *config) byteLevel() (Tokenizer, error) {
	const byT5ExtraIDs = 125
	tokens := c.tokens
	if len(tokens) == 0 {
		tokens = byteLevelTokens(c.extraIDs(byT5ExtraIDs))
	}
	for _, t := range c.elsewhere {
		if !slices.ContainsFunc(tokens, t.same) {
			return nil, fmt.Errorf("%s: added token %q has id %d, which the byte level does not have: "+
				"want it in added_tokens_decoder of %s", c.elsewhereFile, t.Content, t.ID, configFile)
		}
	}
	for i := range min(len(tokens), byteOffset) {
		if want := [byteOffset]string{padPiece, eosPiece, unkPiece}[i]; tokens[i].Content != want {
			return nil, fmt.Errorf("%s: special token %d is %q, want %q", configFile, i, tokens[i].Content, want)
		}
	}
	t, err := newByteLevel(tokens, c.CleanUp)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", configFile, err)
	}
	return t, nil
}
