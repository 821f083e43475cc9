package optim

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
)

// State is everything that training changes: the parameters, AdamW's first and
// second moments of each, and the number of steps taken.
type State struct {
	Step   int64
	Params []float32
	M, V   []float32
}

// NewState returns the state before the first step. It keeps params.
func NewState(params []float32) *State {
	return &State{Params: params, M: make([]float32, len(params)), V: make([]float32, len(params))}
}

// Clone returns a deep copy of s.
func (s *State) Clone() *State {
	c := func(v []float32) []float32 { return append(make([]float32, 0, len(v)), v...) }
	return &State{Step: s.Step, Params: c(s.Params), M: c(s.M), V: c(s.V)}
}

// check verifies that the parts belong together.
func (s *State) check() error {
	if s.Step < 0 {
		return fmt.Errorf("state at step %d, want 0 or more", s.Step)
	}
	if len(s.M) != len(s.Params) || len(s.V) != len(s.Params) {
		return fmt.Errorf("state of %d parameters with %d first and %d second moments, want as many of each",
			len(s.Params), len(s.M), len(s.V))
	}
	return nil
}

// The encoding of a State, all little endian:
//
//	magic "DPTSTATE" | uint32 version | int64 step | uint64 n
//	n float32 params | n float32 m | n float32 v
const (
	stateMagic   = "DPTSTATE"
	stateVersion = 1
	stateHeader  = len(stateMagic) + 4 + 8 + 8
)

// StateSize is the size in bytes of the encoding of a State of n parameters.
func StateSize(n int) int { return stateHeader + 12*n }

// MarshalBinary encodes s. Equal states have equal encodings.
func (s *State) MarshalBinary() ([]byte, error) {
	out := bytes.NewBuffer(make([]byte, 0, StateSize(len(s.Params))))
	if err := s.Write(out); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// UnmarshalBinary decodes what MarshalBinary encoded. It fails on any other
// length, on numbers that are not finite and on negative second moments, which
// no training produces, and then leaves s as it was.
func (s *State) UnmarshalBinary(data []byte) error {
	d, err := decodeState(data)
	if err != nil {
		return fmt.Errorf("decode state: %w", err)
	}
	*s = *d
	return nil
}

func decodeState(data []byte) (*State, error) {
	if len(data) < stateHeader {
		return nil, fmt.Errorf("%d bytes, want at least the header's %d", len(data), stateHeader)
	}
	step, n, err := decodeHeader(data[:stateHeader])
	if err != nil {
		return nil, err
	}
	body := data[stateHeader:]
	if n > uint64(len(body))/12 || uint64(len(body)) != 12*n {
		return nil, fmt.Errorf("%d bytes after the header, want 12 for each of %d parameters", len(body), n)
	}
	s := NewState(make([]float32, n))
	s.Step = step
	for k, part := range s.parts() {
		if err := decodeNumbers(part, body[k*4*int(n):], k, 0); err != nil {
			return nil, err
		}
	}
	return s, s.check()
}

func decodeHeader(data []byte) (step int64, n uint64, err error) {
	rest, ok := bytes.CutPrefix(data, []byte(stateMagic))
	if !ok {
		return 0, 0, fmt.Errorf("starts with %q, want %q", data[:len(stateMagic)], stateMagic)
	}
	if v := binary.LittleEndian.Uint32(rest); v != stateVersion {
		return 0, 0, fmt.Errorf("version %d, want %d", v, stateVersion)
	}
	return int64(binary.LittleEndian.Uint64(rest[4:])), binary.LittleEndian.Uint64(rest[12:]), nil
}

// parts are the numbers in the order of the encoding.
func (s *State) parts() [3][]float32 { return [...][]float32{s.Params, s.M, s.V} }

// decodeNumbers reads the numbers of part k, from the one at first on.
func decodeNumbers(into []float32, data []byte, k, first int) error {
	name := [...]string{"parameter", "first moment", "second moment"}[k]
	for i := range into {
		v := math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
		if v-v != 0 {
			return fmt.Errorf("%s %d is %v, want a finite number", name, first+i, v)
		}
		if k == 2 && v < 0 {
			return fmt.Errorf("%s %d is %v, want 0 or more", name, first+i, v)
		}
		into[i] = v
	}
	return nil
}

// Digest returns the SHA-256 of s's encoding. Workers whose digests agree hold
// the same state to the last bit. It panics if the parts of s differ in length,
// which is a mistake of the caller.
func (s *State) Digest() [32]byte {
	h := sha256.New()
	if err := s.Write(h); err != nil {
		panic(err)
	}
	return [32]byte(h.Sum(nil))
}
