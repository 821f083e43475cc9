package allreduce

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// A message is a fixed header and a payload, all little endian:
//
//	 0  magic "dpr" and the version of the format, 2
//	 4  kind: 1 reduce, 2 gather, 3 abort
//	 5  zero
//	 6  hop, uint16
//	 8  tag of the job, uint64: the first bytes of the SHA-256 of its id
//	16  generation, uint64
//	24  step, uint64
//	32  sender's rank, uint32
//	36  length of the vector, uint32
//	40  chunk, uint32
//	44  count, uint32: numbers in the payload; bytes in an abort
//	48  CRC-32C of the bytes before it and of the payload
//	52  payload: the chunk's numbers (wire.go); an abort's reason as text
//
// The checksum guards what neither TCP's 16 bits nor the digest of the result
// do: a chunk that is damaged in the reduce phase is damaged alike for everyone.
const (
	headerSize     = 52
	checksumOffset = 48
	wireVersion    = 2
	magic          = "dpr"

	// maxReason bounds the reason in an abort, in bytes.
	maxReason = 512
	// maxHops bounds a schedule's hops of each phase: a hop's index has 16 bits.
	maxHops = 1<<16 - 1
	// maxMembers bounds the size of a ring: its hops are not more than maxHops.
	maxMembers = 1 << 16
)

type kind uint8

const (
	kindReduce = kind(Reduce)
	kindGather = kind(Gather)
	kindAbort  = kind(3)
)

// header is a message without its payload.
type header struct {
	kind       kind
	hop        int
	job        uint64
	generation Generation
	step       Step
	from       Rank
	length     int
	chunk      int
	count      int
}

// message is a decoded message; payload is a part of the bytes it was decoded from.
type message struct {
	header
	payload []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendHeader begins a message in b, which is empty; its payload is to be
// appended and the message finished by seal.
func appendHeader(b []byte, h header) []byte {
	b = append(b, magic...)
	b = append(b, wireVersion, byte(h.kind), 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(h.hop))
	b = binary.LittleEndian.AppendUint64(b, h.job)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.generation))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.step))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.from))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.length))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.chunk))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.count))
	return binary.LittleEndian.AppendUint32(b, 0)
}

// seal writes the checksum into a message that is otherwise complete.
func seal(b []byte) {
	binary.LittleEndian.PutUint32(b[checksumOffset:], checksum(b))
}

func checksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:checksumOffset], castagnoli), castagnoli, b[headerSize:])
}

// decodeMessage reads one message that fills b. It checks all that can be checked
// without knowing the ring.
func decodeMessage(b []byte) (message, error) {
	if len(b) < headerSize {
		return message{}, fmt.Errorf("message of %d bytes, want at least %d", len(b), headerSize)
	}
	if string(b[:3]) != magic || b[3] != wireVersion {
		return message{}, fmt.Errorf("message begins with % x, want %q and version %d", b[:4], magic, wireVersion)
	}
	if got, want := binary.LittleEndian.Uint32(b[checksumOffset:]), checksum(b); got != want {
		return message{}, fmt.Errorf("message has checksum %08x, its bytes give %08x", got, want)
	}
	m := message{
		header: header{
			kind:       kind(b[4]),
			hop:        int(binary.LittleEndian.Uint16(b[6:])),
			job:        binary.LittleEndian.Uint64(b[8:]),
			generation: Generation(binary.LittleEndian.Uint64(b[16:])),
			step:       Step(binary.LittleEndian.Uint64(b[24:])),
			from:       Rank(binary.LittleEndian.Uint32(b[32:])),
			length:     int(binary.LittleEndian.Uint32(b[36:])),
			chunk:      int(binary.LittleEndian.Uint32(b[40:])),
			count:      int(binary.LittleEndian.Uint32(b[44:])),
		},
		payload: b[headerSize:],
	}
	if b[5] != 0 {
		return message{}, fmt.Errorf("message has %d in its reserved byte, want 0", b[5])
	}
	var err error
	switch m.kind {
	case kindReduce, kindGather:
		err = checkPacked(m.payload, m.count)
	case kindAbort:
		if m.count > maxReason {
			return message{}, fmt.Errorf("abort with a reason of %d bytes, want at most %d", m.count, maxReason)
		}
		if m.count != len(m.payload) {
			err = errors.New("its reason has another length")
		}
	default:
		return message{}, fmt.Errorf("message of kind %d, want 1 to 3", b[4])
	}
	if err != nil {
		return message{}, fmt.Errorf("message announces %d items in %d bytes, but %w", m.count, len(m.payload), err)
	}
	return m, nil
}

// reason is the text of an abort, made printable.
func (m message) reason() string {
	return strings.ToValidUTF8(string(m.payload), "\ufffd")
}

// jobTag stands for a job's id in messages; the whole id is in the stream's hello.
func jobTag(job string) uint64 {
	sum := sha256.Sum256([]byte(job))
	return binary.LittleEndian.Uint64(sum[:])
}

// clipReason cuts a reason to what fits into an abort or a status, between two characters.
func clipReason(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	return strings.ToValidUTF8(s, "")
}
