package tokenizer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// charsmap is SentencePiece's precompiled_charsmap: a Darts-clone double array
// from byte sequences to offsets into a blob of NUL-terminated replacements.
//
// Layout: the array's size in bytes (uint32, little endian), its units (uint32
// each), the replacements. A unit holds, from bit 0: its label (8 bits), whether
// a leaf hangs under it (bit 8), whether the offset is scaled by 256 (bit 9), the
// offset to its children (bits 10 to 30). A leaf has bit 31 set, the rest is its value.
type charsmap struct {
	units        []uint32
	replacements string
}

// maxRuleLen bounds a rewrite rule's left side in bytes. Real rules are at most
// a few characters long; without a bound a crafted cyclic array would match
// prefixes of any length and make normalization quadratic.
const maxRuleLen = 256

func parseCharsmap(data []byte) (*charsmap, error) {
	const unitBytes, blockBytes = 4, 256 * 4
	if len(data) < unitBytes {
		return nil, fmt.Errorf("precompiled_charsmap is %d bytes, want at least %d", len(data), unitBytes)
	}
	size := uint64(binary.LittleEndian.Uint32(data))
	data = data[unitBytes:]
	if size >= uint64(len(data)) {
		return nil, fmt.Errorf("precompiled_charsmap declares a trie of %d bytes, want fewer than the %d that follow",
			size, len(data))
	}
	if size == 0 || size%blockBytes != 0 {
		return nil, fmt.Errorf("precompiled_charsmap declares a trie of %d bytes, want a positive multiple of %d",
			size, blockBytes)
	}
	if data[len(data)-1] != 0 {
		return nil, errors.New("precompiled_charsmap's replacements do not end with a NUL byte")
	}
	m := &charsmap{units: make([]uint32, size/unitBytes), replacements: string(data[size:])}
	for i := range m.units {
		m.units[i] = binary.LittleEndian.Uint32(data[i*unitBytes:])
	}
	return m, m.check()
}

// check makes sure that no search can leave the array or the replacements.
func (m *charsmap) check() error {
	n := uint32(len(m.units))
	for i, u := range m.units {
		if isLeaf(u) {
			if v := leafValue(u); int(v) >= len(m.replacements) {
				return fmt.Errorf("precompiled_charsmap unit %d points at replacement byte %d of %d",
					i, v, len(m.replacements))
			}
			continue
		}
		children := uint32(i) ^ offset(u)
		if children|0xff >= n {
			return fmt.Errorf("precompiled_charsmap unit %d points at unit %d of %d", i, children|0xff, n)
		}
		if hasLeaf(u) && !isLeaf(m.units[children]) {
			return fmt.Errorf("precompiled_charsmap unit %d says that unit %d is a leaf, which it is not", i, children)
		}
	}
	if isLeaf(m.units[0]) {
		return errors.New("precompiled_charsmap's root is a leaf")
	}
	return nil
}

// longest gives the replacement for the longest rule that s starts with, and how
// many bytes of s that rule covers; 0 if none does.
func (m *charsmap) longest(s string) (replacement string, n int) {
	node := offset(m.units[0])
	value := uint32(0)
	for i := 0; i < len(s) && i < maxRuleLen; i++ {
		node ^= uint32(s[i])
		u := m.units[node]
		if label(u) != uint32(s[i]) {
			break
		}
		node ^= offset(u)
		if hasLeaf(u) {
			value, n = leafValue(m.units[node]), i+1
		}
	}
	if n == 0 {
		return "", 0
	}
	rest := m.replacements[value:]
	return rest[:strings.IndexByte(rest, 0)], n
}

// stands reports whether byte c, followed by any ASCII byte or the end of the
// text, is left as it is.
func (m *charsmap) stands(c byte) bool {
	if _, n := m.longest(string([]byte{c})); n != 0 {
		return false
	}
	node := offset(m.units[0]) ^ uint32(c)
	if label(m.units[node]) != uint32(c) {
		return true
	}
	node ^= offset(m.units[node])
	for next := uint32(0); next < 0x80; next++ {
		if label(m.units[node^next]) == next {
			return false
		}
	}
	return true
}

func isLeaf(u uint32) bool      { return u>>31 == 1 }
func leafValue(u uint32) uint32 { return u &^ (1 << 31) }
func hasLeaf(u uint32) bool     { return u>>8&1 == 1 }
func label(u uint32) uint32     { return u & (1<<31 | 0xff) } // no byte, for a leaf
func offset(u uint32) uint32    { return u >> 10 << (u >> 9 & 1 << 3) }
