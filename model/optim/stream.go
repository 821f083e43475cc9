package optim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// pieceSize is the number of bytes of an encoding that are in memory at a time.
const pieceSize = 256 << 10

// Write writes s's encoding to w piece by piece, without a copy of the whole.
func (s *State) Write(w io.Writer) error {
	if err := s.check(); err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	piece := make([]byte, 0, min(pieceSize, StateSize(len(s.Params))))
	piece = append(piece, stateMagic...)
	piece = binary.LittleEndian.AppendUint32(piece, stateVersion)
	piece = binary.LittleEndian.AppendUint64(piece, uint64(s.Step))
	piece = binary.LittleEndian.AppendUint64(piece, uint64(len(s.Params)))
	for _, part := range s.parts() {
		for len(part) > 0 {
			n := min(len(part), (cap(piece)-len(piece))/4)
			for _, v := range part[:n] {
				piece = binary.LittleEndian.AppendUint32(piece, math.Float32bits(v))
			}
			if part = part[n:]; len(part) == 0 {
				break
			}
			if _, err := w.Write(piece); err != nil {
				return fmt.Errorf("write state: %w", err)
			}
			piece = piece[:0]
		}
	}
	if _, err := w.Write(piece); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// Read reads the encoding of a state with as many parameters as s has, piece by piece into s's own
// numbers, and nothing beyond it. It checks what UnmarshalBinary checks. After an error s holds
// partly old and partly new numbers.
func (s *State) Read(r io.Reader) error {
	if err := s.read(r, s.parts()); err != nil {
		return fmt.Errorf("decode state: %w", err)
	}
	return nil
}

// ReadParams reads the encoding of a state of params parameters to its end and returns the
// parameters; it checks the moments and drops them.
func ReadParams(r io.Reader, params int) ([]float32, error) {
	s := State{Params: make([]float32, params)}
	if err := s.read(r, [...][]float32{s.Params, nil, nil}); err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	return s.Params, nil
}

// read fills parts. It reads and drops a part that is nil.
func (s *State) read(r io.Reader, parts [3][]float32) error {
	want := len(s.Params)
	piece := make([]byte, min(pieceSize, max(stateHeader, 4*want)))
	if err := full(r, piece[:stateHeader]); err != nil {
		return err
	}
	step, n, err := decodeHeader(piece[:stateHeader])
	if err != nil {
		return err
	}
	if n != uint64(want) {
		return fmt.Errorf("%d parameters, want %d", n, want)
	}
	if step < 0 {
		return fmt.Errorf("state at step %d, want 0 or more", step)
	}
	s.Step = step
	var dropped [pieceSize / 4]float32
	for k, part := range parts {
		for at := 0; at < want; {
			n := min(want-at, len(piece)/4)
			if err := full(r, piece[:4*n]); err != nil {
				return err
			}
			into := dropped[:n]
			if part != nil {
				into = part[at : at+n]
			}
			if err := decodeNumbers(into, piece, k, at); err != nil {
				return err
			}
			at += n
		}
	}
	return nil
}

// full reads len(b) bytes into b.
func full(r io.Reader, b []byte) error {
	n, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it ends within %d bytes after %d: %w", len(b), n, io.ErrUnexpectedEOF)
	}
	return err
}
