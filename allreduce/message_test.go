package allreduce

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
)

func sealed(h header, payload []byte) []byte {
	b := append(appendHeader(nil, h), payload...)
	seal(b)
	return b
}

var sampleHeader = header{
	kind:       kindGather,
	hop:        513,
	job:        1<<63 + 5,
	generation: 1 << 40,
	step:       1<<50 + 1,
	from:       7,
	length:     100000,
	chunk:      8,
	count:      2,
}

// numbers is the wire form of words.
func numbers(words ...word) []byte { return (&Accumulator{words}).appendSpan(nil, 0, len(words)) }

// zeros is the wire form of n numbers in full length, all of them zero.
func zeros(n int) []byte {
	var b []byte
	for ; n > 0; n -= blockSize {
		b = append(b, 0, wordSize)
		b = append(b, make([]byte, wordSize*min(n, blockSize))...)
	}
	return b
}

func TestMessageRoundTrip(t *testing.T) {
	payload := numbers(word{lo: 1}, word{hi: 1 << 60})
	m, err := decodeMessage(sealed(sampleHeader, payload))
	if err != nil || m.header != sampleHeader || !bytes.Equal(m.payload, payload) {
		t.Errorf("got %+v, %v", m, err)
	}
	if n := len(appendHeader(nil, sampleHeader)); n != headerSize {
		t.Errorf("header of %d bytes, want %d", n, headerSize)
	}
	h := header{kind: kindAbort, count: 4}
	if m, err = decodeMessage(sealed(h, []byte("a\xff\xc3b"))); err != nil || m.reason() != "a\ufffdb" {
		t.Errorf("got reason %q, %v", m.reason(), err)
	}
}

func TestGarbledMessages(t *testing.T) {
	good := sealed(sampleHeader, zeros(2))
	changed := func(change func(b []byte) []byte) []byte { return change(bytes.Clone(good)) }
	resealed := func(i int, v byte) []byte {
		return changed(func(b []byte) []byte { b[i] = v; seal(b); return b })
	}
	tests := []struct {
		name string
		data []byte
		want string // part of the error
	}{
		{"empty", nil, "0 bytes, want at least 52"},
		{"header cut", good[:headerSize-1], "51 bytes"},
		{"magic", resealed(0, 'x'), "begins with"},
		{"version", resealed(3, 9), "version 2"},
		{"kind", resealed(4, 4), "kind 4"},
		{"no kind", resealed(4, 0), "kind 0"},
		{"reserved", resealed(5, 1), "reserved"},
		{"payload cut", good[:len(good)-1], "checksum"},
		{"payload cut, resealed", sealed(sampleHeader, zeros(2)[:33]),
			"2 items in 33 bytes, but the last block is cut off"},
		{"payload too long", sealed(sampleHeader, append(zeros(2), 0)), "the numbers end 1 bytes before the 35"},
		{"no block", sealed(sampleHeader, nil), "cut off"},
		{"wide block", sealed(sampleHeader, append([]byte{0, 17}, make([]byte, 34)...)),
			"17 bytes shifted by 0 bits"},
		{"block shifted out", sealed(sampleHeader, append([]byte{8, 16}, make([]byte, 32)...)),
			"16 bytes shifted by 8 bits"},
		{"huge shift", sealed(sampleHeader, []byte{128, 0}), "shifted by 128 bits"},
		{"count", resealed(44, 3), "3 items in 34 bytes"},
		{"huge count", resealed(47, 255), "items"},
		{"abort's count", sealed(header{kind: kindAbort, count: 4}, []byte("why")), "another length"},
		{"flipped bit in the payload", changed(func(b []byte) []byte { b[headerSize+5] ^= 4; return b }),
			"checksum"},
		{"flipped bit in the header", changed(func(b []byte) []byte { b[24] ^= 1; return b }), "checksum"},
		{"long reason", sealed(header{kind: kindAbort, count: maxReason + 1}, make([]byte, maxReason+1)),
			"at most 512"},
	}
	for _, tt := range tests {
		if _, err := decodeMessage(tt.data); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

func TestHello(t *testing.T) {
	h := hello{
		generation: 1 << 40,
		from:       3,
		size:       4,
		job:        "job-1",
		members:    membershipDigest([]Member{{ID: "a"}, {ID: "b"}}),
	}
	data := h.append(nil)
	if got, err := decodeHello(data); err != nil || got != h {
		t.Errorf("got %+v, %v", got, err)
	}
	bad := func(change func(h *hello)) []byte {
		c := h
		change(&c)
		return c.append(nil)
	}
	for name, data := range map[string][]byte{
		"empty":         nil,
		"cut":           data[:helloSize],
		"no job":        bad(func(h *hello) { h.job = "" }),
		"long job":      bad(func(h *hello) { h.job = strings.Repeat("x", maxJob+1) }),
		"rank too high": bad(func(h *hello) { h.from = 4 }),
		"rank negative": bad(func(h *hello) { h.from = -1 }),
		"size 1":        bad(func(h *hello) { h.size, h.from = 1, 0 }),
		"huge size":     bad(func(h *hello) { h.size = maxMembers + 1 }),
		"version":       append([]byte{wireVersion + 1}, data[1:]...),
	} {
		if got, err := decodeHello(data); err == nil {
			t.Errorf("%s: decoded as %+v", name, got)
		}
	}
	if _, err := helloOf(context.Background()); err == nil {
		t.Error("a request without metadata has a hello")
	}
	two := metadata.Pairs(helloKey, string(data), helloKey, string(data))
	if _, err := helloOf(metadata.NewIncomingContext(context.Background(), two)); err == nil {
		t.Error("a request with two hellos is accepted")
	}
	if membershipDigest([]Member{{ID: "a"}, {ID: "bc"}}) == membershipDigest([]Member{{ID: "ab"}, {ID: "c"}}) {
		t.Error("different members have one digest")
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add(sealed(sampleHeader, zeros(2)))
	f.Add(sealed(header{kind: kindAbort, count: 3}, []byte("why")))
	f.Add(sealed(header{kind: kindReduce}, nil))
	twoBlocks := append(numbers(make([]word, blockSize)...), numbers(
		word{lo: 3 << 20}, word{hi: 1 << 62}, word{}, word{}, word{}, word{}, word{}, word{hi: 1 << 63})...)
	f.Add(sealed(header{kind: kindReduce, count: blockSize + 8}, twoBlocks))
	f.Fuzz(func(t *testing.T, data []byte) {
		// The checksum would stop nearly every mutation: mend it for a second try.
		mended := bytes.Clone(data)
		if len(mended) >= headerSize {
			seal(mended)
		}
		for _, b := range [][]byte{data, mended} {
			m, err := decodeMessage(b)
			if err != nil {
				continue
			}
			if again := sealed(m.header, m.payload); !bytes.Equal(again, b) {
				t.Fatalf("decoded %+v encodes as % x, not as % x", m, again, b)
			}
			if m.kind == kindAbort {
				_ = m.reason()
			} else {
				acc := NewAccumulator(m.count)
				acc.setSpan(0, m.count, m.payload)
				again := NewAccumulator(m.count)
				again.setSpan(0, m.count, acc.appendSpan(nil, 0, m.count))
				if !again.Equal(acc) {
					t.Fatal("numbers differ after another trip")
				}
				_ = acc.addSpan(0, m.count, m.payload) // may overflow
			}
		}
	})
}

func FuzzDecodeHello(f *testing.F) {
	f.Add(hello{generation: 1, from: 1, size: 2, job: "j"}.append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := decodeHello(data); err == nil && !bytes.Equal(h.append(nil), data) {
			t.Fatalf("decoded %+v does not encode as % x", h, data)
		}
	})
}
