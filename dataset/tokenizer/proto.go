package tokenizer

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// parseModel reads a spiece.model: the message ModelProto of SentencePiece's
// sentencepiece_model.proto. It reads what a unigram model's encoding depends
// on and skips the rest. The special tokens are left to the caller.
func parseModel(data []byte) (*spec, error) {
	s := &spec{unk: -1, norm: normSpec{dummyPrefix: true, trimSpaces: true, escapeSpaces: true}}
	const unigramModel = 1
	modelType := uint64(unigramModel)
	err := eachField(data, func(f field) error {
		switch f.num {
		case 1:
			p, err := parsePiece(f)
			if err != nil {
				return fmt.Errorf("piece %d: %w", len(s.pieces), err)
			}
			if p.kind == unknown && s.unk < 0 {
				s.unk = int32(len(s.pieces))
			}
			s.pieces = append(s.pieces, p)
		case 2:
			err := eachMember(f, func(f field) (err error) {
				switch f.num {
				case 3:
					modelType, err = f.varint()
				case 24:
					s.norm.spaceIsSuffix, err = f.flag()
				case 35:
					s.byteFallback, err = f.flag()
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("trainer_spec: %w", err)
			}
		case 3:
			err := eachMember(f, func(f field) (err error) {
				switch f.num {
				case 2:
					s.norm.charsmap, err = f.bytes()
				case 3:
					s.norm.dummyPrefix, err = f.flag()
				case 4:
					s.norm.trimSpaces, err = f.flag()
				case 5:
					s.norm.escapeSpaces, err = f.flag()
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("normalizer_spec: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("SentencePiece model: %w", err)
	}
	if modelType != unigramModel {
		return nil, fmt.Errorf("SentencePiece model has type %d, want %d (unigram)", modelType, unigramModel)
	}
	return s, nil
}

func parsePiece(f field) (piece, error) {
	p := piece{kind: normal}
	err := eachMember(f, func(f field) error {
		switch f.num {
		case 1:
			text, err := f.bytes()
			if err != nil {
				return err
			}
			p.text = string(text)
		case 2:
			if f.typ != protowire.Fixed32Type {
				return f.wrongType("fixed32")
			}
			p.score = math.Float32frombits(uint32(f.scalar))
		case 3:
			k, err := f.varint()
			if err != nil {
				return err
			}
			// An enum value that is not known counts as not set.
			if k >= uint64(normal) && k <= uint64(byteKind) {
				p.kind = kind(k)
			}
		}
		return nil
	})
	return p, err
}

// field is one field of a protocol buffer message.
type field struct {
	num    protowire.Number
	typ    protowire.Type
	scalar uint64
	data   []byte // of a BytesType; shares memory with the message
}

func (f field) wrongType(want string) error {
	return fmt.Errorf("field %d has wire type %d, want %s", f.num, f.typ, want)
}

func (f field) varint() (uint64, error) {
	if f.typ != protowire.VarintType {
		return 0, f.wrongType("varint")
	}
	return f.scalar, nil
}

func (f field) flag() (bool, error) {
	v, err := f.varint()
	return v != 0, err
}

func (f field) bytes() ([]byte, error) {
	if f.typ != protowire.BytesType {
		return nil, f.wrongType("bytes")
	}
	return f.data, nil
}

// eachMember calls visit on each field of the message that f holds.
func eachMember(f field, visit func(field) error) error {
	data, err := f.bytes()
	if err != nil {
		return err
	}
	return eachField(data, visit)
}

// eachField calls visit on each field of a message.
func eachField(data []byte, visit func(field) error) error {
	size := len(data)
	for len(data) > 0 {
		at := size - len(data)
		var f field
		var n int
		f.num, f.typ, n = protowire.ConsumeTag(data)
		if n < 0 {
			return fmt.Errorf("field at byte %d of %d: %w", at, size, protowire.ParseError(n))
		}
		data = data[n:]
		switch f.typ {
		case protowire.VarintType:
			f.scalar, n = protowire.ConsumeVarint(data)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(data)
			f.scalar = uint64(v)
		case protowire.BytesType:
			f.data, n = protowire.ConsumeBytes(data)
		default:
			n = protowire.ConsumeFieldValue(f.num, f.typ, data)
		}
		if n < 0 {
			return fmt.Errorf("field %d at byte %d of %d: %w", f.num, at, size, protowire.ParseError(n))
		}
		data = data[n:]
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}
