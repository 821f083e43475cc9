package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
)

// Entries and snapshots are sealed: a byte of format, the CRC-32C of what follows in little endian, the protobuf
// message. The checksum goes with the entry from the leader that made it to every replica that applies it, over the wire
// and through the disk, so that a flipped bit anywhere on the way is found before it becomes state.
const (
	sealFormat = 1
	sealSize   = 1 + crc32.Size
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode is the one encoding of an entry.
func Encode(e *fsmpb.Entry) ([]byte, error) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode log entry: %w", err)
	}
	return seal(data), nil
}

func decode(data []byte) (*fsmpb.Entry, error) {
	e := new(fsmpb.Entry)
	if err := unseal(data, e); err != nil {
		return nil, fmt.Errorf("log entry of %d bytes: %w", len(data), err)
	}
	return e, nil
}

func seal(message []byte) []byte {
	out := make([]byte, sealSize, sealSize+len(message))
	out[0] = sealFormat
	binary.LittleEndian.PutUint32(out[1:], crc32.Checksum(message, castagnoli))
	return append(out, message...)
}

func unseal(data []byte, into proto.Message) error {
	if len(data) < sealSize {
		return fmt.Errorf("want at least %d: it is cut short", sealSize)
	}
	if data[0] != sealFormat {
		return fmt.Errorf("format %d, this build reads %d", data[0], sealFormat)
	}
	want := binary.LittleEndian.Uint32(data[1:])
	if got := crc32.Checksum(data[sealSize:], castagnoli); got != want {
		return fmt.Errorf("checksum %08x, want %08x: it was damaged on its way", got, want)
	}
	if err := proto.Unmarshal(data[sealSize:], into); err != nil {
		return err
	}
	return known(into.ProtoReflect())
}

// known refuses a message with fields that this build has no name for: to leave them out would be to hold another
// state than a replica that knows them.
func known(m protoreflect.Message) (err error) {
	if len(m.GetUnknown()) > 0 {
		return fmt.Errorf("%s has fields that this build does not know; was it written by a newer version?", m.Descriptor().Name())
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Kind() != protoreflect.MessageKind:
		case fd.IsList():
			for i := range v.List().Len() {
				err = errors.Join(err, known(v.List().Get(i).Message()))
			}
		default:
			err = known(v.Message())
		}
		return err == nil
	})
	return err
}
