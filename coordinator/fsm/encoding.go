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

// Entries and snapshots are sealed: one byte of format, the CRC-32C of the message in little
// endian, the protobuf message. The checksum travels with the entry from the leader that makes it
// to every replica that applies it, over the wire and through the disk, so that a flipped bit is
// found before it becomes state.
const (
	sealFormat = 1
	sealSize   = 1 + crc32.Size // before the message, in bytes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode encodes an entry for Apply. The same entry gives the same bytes.
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

// seal adds the format and the checksum to an encoded message.
func seal(message []byte) []byte {
	out := make([]byte, sealSize, sealSize+len(message))
	out[0] = sealFormat
	binary.LittleEndian.PutUint32(out[1:], crc32.Checksum(message, castagnoli))
	return append(out, message...)
}

// unseal checks and decodes what seal made.
func unseal(data []byte, into proto.Message) error {
	if len(data) < sealSize {
		return fmt.Errorf("want at least %d: it is cut short", sealSize)
	}
	if data[0] != sealFormat {
		return fmt.Errorf("format %d, this build reads %d", data[0], sealFormat)
	}
	want := binary.LittleEndian.Uint32(data[1:])
	if got := crc32.Checksum(data[sealSize:], castagnoli); got != want {
		return fmt.Errorf("checksum %08x, want %08x: it was damaged on the wire or on disk", got, want)
	}
	if err := proto.Unmarshal(data[sealSize:], into); err != nil {
		return err
	}
	return checkFields(into.ProtoReflect())
}

// checkFields refuses a message with fields that this build does not know: a replica that leaves
// them out holds another state than one that knows them.
func checkFields(m protoreflect.Message) (err error) {
	if len(m.GetUnknown()) > 0 {
		return fmt.Errorf("%s has fields that this build does not know; was it written by a newer version?",
			m.Descriptor().Name())
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Kind() != protoreflect.MessageKind:
		case fd.IsList():
			for i := range v.List().Len() {
				err = errors.Join(err, checkFields(v.List().Get(i).Message()))
			}
		default:
			err = checkFields(v.Message())
		}
		return err == nil
	})
	return err
}
