package optim

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// largest is a buffer that notes the largest piece written to it.
type largest struct {
	bytes.Buffer
	piece int
}

func (l *largest) Write(p []byte) (int, error) {
	l.piece = max(l.piece, len(p))
	return l.Buffer.Write(p)
}

// numbered is a state in which every number differs.
func numbered(n int) *State {
	s := NewState(make([]float32, n))
	s.Step = int64(n)
	for i := range n {
		s.Params[i], s.M[i], s.V[i] = float32(i)+0.25, -float32(i)-0.5, float32(i)+0.75
	}
	return s
}

// TestStateInPieces: a state written and read piece by piece is the same as at once, wherever the
// pieces end.
func TestStateInPieces(t *testing.T) {
	const piece = pieceSize / 4
	for _, n := range []int{0, 1, 2, piece/3 - 3, piece / 3, piece - 7, piece - 1, piece, piece + 1, 3*piece + 5} {
		s := numbered(n)
		whole, err := s.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var out largest
		if err := s.Write(&out); err != nil || !bytes.Equal(out.Bytes(), whole) || out.piece > pieceSize {
			t.Fatalf("%d parameters: %d bytes in pieces of up to %d (%v), want the %d of the whole in at most %d",
				n, out.Len(), out.piece, err, len(whole), pieceSize)
		}
		back := numbered(n)
		back.Step = 1
		clear(back.V)
		rest := bytes.NewReader(append(slices.Clone(whole), "rest"...))
		if err := back.Read(iotest.HalfReader(rest)); err != nil || back.Step != s.Step ||
			!slices.Equal(back.Params, s.Params) || !slices.Equal(back.M, s.M) || !slices.Equal(back.V, s.V) {
			t.Errorf("%d parameters do not come back (%v)", n, err)
		}
		if rest.Len() != len("rest") {
			t.Errorf("%d parameters: %d bytes are left to read, want the 4 behind the state", n, rest.Len())
		}
		params, err := ReadParams(bytes.NewReader(whole), n)
		if err != nil || !slices.Equal(params, s.Params) {
			t.Errorf("%d parameters do not come back alone (%v)", n, err)
		}
	}
}

func TestStateInPiecesRefuses(t *testing.T) {
	s := numbered(3)
	data, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	change := func(at int, b ...byte) []byte {
		d := slices.Clone(data)
		copy(d[at:], b)
		return d
	}
	for want, bad := range map[string][]byte{
		"ends within 28 bytes after 0":              nil,
		`starts with "XPTSTATE"`:                    change(0, 'X'),
		"version 2, want 1":                         change(8, 2),
		"state at step -1":                          change(12, 255, 255, 255, 255, 255, 255, 255, 255),
		"4 parameters, want 3":                      change(20, 4),
		"ends within 12 bytes after 11":             data[:len(data)-1],
		"parameter 1 is +Inf, want a finite number": change(32, 0, 0, 0x80, 0x7f),
		"first moment 2 is":                         change(48, 0, 0, 0xc0, 0x7f),
		"second moment 0 is -3, want 0 or more":     change(52, 0, 0, 0x40, 0xc0),
	} {
		if err := numbered(3).Read(bytes.NewReader(bad)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		if _, err := ReadParams(bytes.NewReader(bad), 3); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parameters alone: error %v, want one with %q", err, want)
		}
	}
	full := errors.New("no space left")
	if err := s.Write(failing{full}); !errors.Is(err, full) {
		t.Errorf("error %v, want the writer's", err)
	}
	if err := s.Read(iotest.ErrReader(full)); !errors.Is(err, full) {
		t.Errorf("error %v, want the reader's", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// FuzzRead: any input is accepted or refused piece by piece exactly as it is as a whole.
func FuzzRead(f *testing.F) {
	for _, n := range []int{0, 1, 3} {
		data, err := numbered(n).MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, uint8(n))
		f.Add(data[:len(data)/2], uint8(n))
	}
	f.Fuzz(func(t *testing.T, data []byte, n uint8) {
		var whole State
		wantErr := whole.UnmarshalBinary(data[:min(len(data), StateSize(int(n)))])
		s := NewState(make([]float32, n))
		err := s.Read(bytes.NewReader(data))
		if wantErr == nil && len(whole.Params) != int(n) {
			wantErr = io.ErrUnexpectedEOF // another state than the one asked for
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%x for %d parameters: %v in pieces, %v as a whole", data, n, err, wantErr)
		}
		if err == nil && s.Digest() != whole.Digest() {
			t.Fatalf("%x for %d parameters gives another state in pieces", data, n)
		}
	})
}
