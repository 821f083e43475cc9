package job

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Request is the encoding of the settings that a queue keeps. It is an error if they are out of
// range.
func (s Settings) Request() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	return data, nil
}

// ParseRequest reads what Request wrote, and checks it. A field that this build does not know is an
// error: it might decide the result.
func ParseRequest(data []byte) (Settings, error) {
	var s Settings
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return Settings{}, fmt.Errorf("settings: %w", err)
	}
	if rest := bytes.TrimSpace(data[dec.InputOffset():]); len(rest) > 0 {
		return Settings{}, fmt.Errorf("settings: %d bytes after their end, want none", len(rest))
	}
	return s, s.Validate()
}
