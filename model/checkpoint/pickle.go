package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The functions and types that a state dictionary of tensors consists of, and all that a pickle may
// ask for. Nothing is ever looked up or called by name: the machine knows what these would do.
const (
	rebuildTensor    = "torch._utils._rebuild_tensor_v2"
	rebuildParameter = "torch._utils._rebuild_parameter"
	orderedDict      = "collections.OrderedDict"
	torchSize        = "torch.Size"
)

// storageTypes are torch's storages by the type of their elements.
var storageTypes = map[string]DType{
	"torch.FloatStorage":    Float32,
	"torch.HalfStorage":     Float16,
	"torch.BFloat16Storage": BFloat16,
	"torch.DoubleStorage":   Float64,
	"torch.LongStorage":     "I64",
	"torch.IntStorage":      "I32",
	"torch.ShortStorage":    "I16",
	"torch.CharStorage":     "I8",
	"torch.ByteStorage":     "U8",
	"torch.BoolStorage":     "BOOL",
}

// What a pickle's opcodes make, beside nil, bool, int64, float64 and string.
type (
	pickleGlobal  string // module.name
	pickleTuple   []any
	pickleList    struct{ items []any }
	pickleDict    struct{ keys, values []any }
	pickleStorage struct {
		dtype DType
		key   string // the storage's file in the archive is data/key
		numel uint64
	}
	pickleTensor struct {
		storage         pickleStorage
		offset          uint64 // in elements
		shape, strides  []int  // strides in elements
		elements, reach uint64 // how many, and how many of the storage from its start they span
	}
	pickleMark struct{}
)

// unpickler is a pickle machine for state dictionaries of tensors. Its memory is at most
// proportional to the pickle's length.
type unpickler struct {
	data  []byte
	at    int
	stack []any
	memo  map[uint64]any
}

var errPickleEnds = errors.New("pickle ends in the middle of an instruction")

// unpickle runs a pickle and returns its result.
func unpickle(data []byte) (any, error) {
	u := &unpickler{data: data, memo: make(map[uint64]any)}
	for {
		at := u.at
		op, err := u.take(1)
		if err != nil {
			return nil, err
		}
		if op[0] == '.' {
			return u.pop()
		}
		if err := u.step(op[0]); err != nil {
			return nil, fmt.Errorf("pickle, byte %d: %w", at, err)
		}
	}
}

// step runs one instruction. The letters are those of Python's pickle module.
func (u *unpickler) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		v, err := u.uint(1)
		if err == nil && (v < 2 || v > 5) {
			err = fmt.Errorf("protocol %d, want 2 to 5", v)
		}
		return err
	case 0x95: // FRAME
		_, err := u.take(8)
		return err
	case '(': // MARK
		u.push(pickleMark{})
	case '0': // POP
		_, err := u.pop()
		return err
	case 'N':
		u.push(nil)
	case 0x88, 0x89: // NEWTRUE, NEWFALSE
		u.push(op == 0x88)
	case 'J', 'K', 'M', 0x8a: // BININT, BININT1, BININT2, LONG1
		return u.integer(op)
	case 'G': // BINFLOAT
		b, err := u.take(8)
		if err == nil {
			u.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
		}
		return err
	case 'X', 0x8c, 0x8d, 'U', 'T': // BINUNICODE and its short and long forms, SHORT_BINSTRING, BINSTRING
		width := map[byte]int{'X': 4, 0x8c: 1, 0x8d: 8, 'U': 1, 'T': 4}[op]
		n, err := u.uint(width)
		if err != nil {
			return err
		}
		b, err := u.take(n)
		if err == nil {
			u.push(string(b))
		}
		return err
	case '}': // EMPTY_DICT
		u.push(&pickleDict{})
	case ']': // EMPTY_LIST
		u.push(&pickleList{})
	case ')': // EMPTY_TUPLE
		u.push(pickleTuple{})
	case 't', 0x85, 0x86, 0x87: // TUPLE, TUPLE1, TUPLE2, TUPLE3
		var list []any
		var err error
		if op == 't' {
			list, err = u.popMark()
		} else {
			list, err = u.popN(int(op) - 0x84)
		}
		if err == nil {
			u.push(pickleTuple(list))
		}
		return err
	case 'q', 'r', 0x94: // BINPUT, LONG_BINPUT, MEMOIZE
		return u.remember(op)
	case 'h', 'j': // BINGET, LONG_BINGET
		i, err := u.uint(map[byte]int{'h': 1, 'j': 4}[op])
		if err != nil {
			return err
		}
		v, ok := u.memo[i]
		if !ok {
			return fmt.Errorf("entry %d of the memo is missing", i)
		}
		u.push(v)
	case 's', 'u', 'a', 'e': // SETITEM, SETITEMS, APPEND, APPENDS
		return u.fill(op)
	case 'c', 0x93: // GLOBAL, STACK_GLOBAL
		return u.global(op)
	case 'Q': // BINPERSID
		return u.storage()
	case 'R': // REDUCE
		return u.reduce()
	case 'b': // BUILD
		// torch keeps versions of modules in the dictionary's attributes, which say nothing here.
		if _, err := u.pop(); err != nil {
			return err
		}
		if len(u.stack) == 0 {
			return errors.New("the stack is empty")
		}
		top := u.stack[len(u.stack)-1]
		if _, ok := top.(*pickleDict); !ok {
			return fmt.Errorf("sets the state of %s, want a dictionary's", describe(top))
		}
	default:
		return fmt.Errorf("instruction %#02x, want one of those that tensors need", op)
	}
	return nil
}

// take returns the next n bytes.
func (u *unpickler) take(n uint64) ([]byte, error) {
	if n > uint64(len(u.data)-u.at) {
		return nil, errPickleEnds
	}
	b := u.data[u.at : u.at+int(n)]
	u.at += int(n)
	return b, nil
}

// uint reads a little-endian number of width bytes.
func (u *unpickler) uint(width int) (uint64, error) {
	b, err := u.take(uint64(width))
	var v uint64
	for i, x := range b {
		v |= uint64(x) << (8 * i)
	}
	return v, err
}

func (u *unpickler) push(v any) { u.stack = append(u.stack, v) }

// pop removes the top of the stack, which is no mark.
func (u *unpickler) pop() (any, error) {
	list, err := u.popN(1)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// popN removes n values from the stack, none of which is a mark.
func (u *unpickler) popN(n int) ([]any, error) {
	from := len(u.stack) - n
	if from < 0 {
		return nil, fmt.Errorf("takes %d values from a stack of %d", n, len(u.stack))
	}
	list := append([]any(nil), u.stack[from:]...)
	for _, v := range list {
		if _, ok := v.(pickleMark); ok {
			return nil, errors.New("takes a mark from the stack as a value")
		}
	}
	u.stack = u.stack[:from]
	return list, nil
}

// popMark removes the values above the topmost mark, and the mark.
func (u *unpickler) popMark() ([]any, error) {
	for i := len(u.stack) - 1; i >= 0; i-- {
		if _, ok := u.stack[i].(pickleMark); ok {
			list := append([]any(nil), u.stack[i+1:]...)
			u.stack = u.stack[:i]
			return list, nil
		}
	}
	return nil, errors.New("the stack has no mark")
}

func (u *unpickler) integer(op byte) error {
	width := map[byte]int{'J': 4, 'K': 1, 'M': 2}[op]
	if op == 0x8a { // LONG1: a length, then two's complement
		n, err := u.uint(1)
		if err != nil {
			return err
		}
		if n > 8 {
			return fmt.Errorf("number of %d bytes, want at most 8", n)
		}
		width = int(n)
	}
	v, err := u.uint(width)
	if err != nil {
		return err
	}
	if signed := op == 'J' || op == 0x8a; signed && width > 0 {
		shift := 64 - 8*width
		u.push(int64(v) << shift >> shift)
		return nil
	}
	u.push(int64(v))
	return nil
}

// remember keeps the top of the stack in the memo.
func (u *unpickler) remember(op byte) error {
	i := uint64(len(u.memo))
	if width := map[byte]int{'q': 1, 'r': 4}[op]; width > 0 {
		var err error
		if i, err = u.uint(width); err != nil {
			return err
		}
	}
	if len(u.stack) == 0 {
		return errors.New("the stack is empty")
	}
	u.memo[i] = u.stack[len(u.stack)-1]
	return nil
}

// fill adds values to the dictionary or list below them.
func (u *unpickler) fill(op byte) error {
	var items []any
	var err error
	switch op {
	case 's':
		items, err = u.popN(2)
	case 'a':
		items, err = u.popN(1)
	default:
		items, err = u.popMark()
	}
	if err != nil {
		return err
	}
	if len(u.stack) == 0 {
		return errors.New("the stack is empty")
	}
	switch to := u.stack[len(u.stack)-1].(type) {
	case *pickleDict:
		if op == 'a' || op == 'e' || len(items)%2 != 0 {
			return errors.New("appends to a dictionary, want pairs of key and value")
		}
		for i := 0; i < len(items); i += 2 {
			to.keys, to.values = append(to.keys, items[i]), append(to.values, items[i+1])
		}
	case *pickleList:
		if op == 's' || op == 'u' {
			return errors.New("sets items of a list, want a dictionary")
		}
		to.items = append(to.items, items...)
	default:
		return fmt.Errorf("adds items to %s, want a dictionary or a list", describe(to))
	}
	return nil
}

// global pushes the name of a function or type, if it is one that tensors need.
func (u *unpickler) global(op byte) error {
	var name string
	if op == 'c' {
		for range 2 {
			end := bytes.IndexByte(u.data[u.at:min(len(u.data), u.at+256)], '\n')
			if end < 0 {
				return errors.New("a global's name has no end within 256 bytes")
			}
			name += "." + string(u.data[u.at:u.at+end])
			u.at += end + 1
		}
		name = name[1:]
	} else {
		pair, err := u.popN(2)
		if err != nil {
			return err
		}
		module, ok1 := pair[0].(string)
		attribute, ok2 := pair[1].(string)
		if !ok1 || !ok2 {
			return errors.New("a global's name is not a string")
		}
		name = module + "." + attribute
	}
	switch name {
	case rebuildTensor, rebuildParameter, orderedDict, torchSize:
	default:
		if _, ok := storageTypes[name]; !ok {
			return fmt.Errorf("the pickle asks for %.100q; only tensors and dictionaries of them are read", name)
		}
	}
	u.push(pickleGlobal(name))
	return nil
}

// storage turns torch's name of a storage, ('storage', type, key, location, numel), into one.
func (u *unpickler) storage() error {
	v, err := u.pop()
	if err != nil {
		return err
	}
	id, ok := v.(pickleTuple)
	if !ok || len(id) != 5 || id[0] != "storage" {
		return fmt.Errorf("persistent id is %s, want torch's of a storage", describe(v))
	}
	class, ok1 := id[1].(pickleGlobal)
	key, ok2 := id[2].(string)
	numel, ok3 := id[4].(int64)
	dtype, ok4 := storageTypes[string(class)]
	if !ok1 || !ok2 || !ok3 || !ok4 || numel < 0 {
		return errors.New("persistent id of a storage, want its type, key, location and number of elements")
	}
	u.push(pickleStorage{dtype: dtype, key: key, numel: uint64(numel)})
	return nil
}

// reduce does what the functions that global lets through would do.
func (u *unpickler) reduce() error {
	pair, err := u.popN(2)
	if err != nil {
		return err
	}
	f, ok1 := pair[0].(pickleGlobal)
	args, ok2 := pair[1].(pickleTuple)
	if !ok1 || !ok2 {
		return fmt.Errorf("calls %s with %s, want a function and a tuple", describe(pair[0]), describe(pair[1]))
	}
	switch {
	case f == orderedDict && len(args) == 0:
		u.push(&pickleDict{})
	case f == torchSize && len(args) == 1:
		u.push(args[0])
	case f == rebuildParameter && len(args) >= 1:
		t, ok := args[0].(*pickleTensor)
		if !ok {
			return fmt.Errorf("a parameter is made of %s, want a tensor", describe(args[0]))
		}
		u.push(t)
	case f == rebuildTensor && len(args) >= 4:
		t, err := newPickleTensor(args)
		if err != nil {
			return err
		}
		u.push(t)
	default:
		return fmt.Errorf("calls %s with %d arguments", f, len(args))
	}
	return nil
}

// newPickleTensor makes a tensor of (storage, offset, shape, strides, …) and checks that it lies
// in its storage.
func newPickleTensor(args pickleTuple) (*pickleTensor, error) {
	s, ok1 := args[0].(pickleStorage)
	offset, ok2 := args[1].(int64)
	shape, ok3 := intTuple(args[2])
	strides, ok4 := intTuple(args[3])
	if !ok1 || !ok2 || !ok3 || !ok4 || offset < 0 || len(shape) != len(strides) {
		return nil, errors.New("a tensor is made of other things than storage, offset, shape and strides")
	}
	t := &pickleTensor{storage: s, offset: uint64(offset), shape: shape, strides: strides, elements: 1}
	last := t.offset
	for i, n := range shape {
		// Sizes are below 2^31, so that a product of two cannot overflow.
		if n > math.MaxInt32 || strides[i] > math.MaxInt32 || t.elements > math.MaxInt32 {
			return nil, fmt.Errorf("tensor of shape %v and strides %v is too large", shape, strides)
		}
		t.elements *= uint64(n)
		if n > 0 {
			last += uint64(n-1) * uint64(strides[i])
		}
		if last > s.numel {
			last = s.numel // too far already; more could overflow
		}
	}
	if t.elements == 0 {
		return t, nil
	}
	t.reach = last + 1
	if t.reach > s.numel {
		return nil, fmt.Errorf("tensor of shape %v and strides %v from element %d on leaves its storage of %d",
			shape, strides, offset, s.numel)
	}
	if t.elements > t.reach-t.offset {
		return nil, fmt.Errorf("tensor of shape %v and strides %v repeats elements of its storage, want each once",
			shape, strides)
	}
	return t, nil
}

// rowMajor reports whether the elements follow one another as they do in a row-major array.
func (t *pickleTensor) rowMajor() bool {
	next := 1
	for i := len(t.shape) - 1; i >= 0; i-- {
		if t.shape[i] != 1 && t.strides[i] != next {
			return t.elements == 0
		}
		next *= t.shape[i]
	}
	return true
}

// intTuple returns the numbers, 0 or more, of a tuple of them.
func intTuple(v any) ([]int, bool) {
	list, ok := v.(pickleTuple)
	if !ok || len(list) > 16 {
		return nil, false
	}
	out := make([]int, len(list))
	for i, x := range list {
		n, ok := x.(int64)
		if !ok || n < 0 || int64(int(n)) != n {
			return nil, false
		}
		out[i] = int(n)
	}
	return out, true
}

// describe names the kind of a value for errors.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool, int64, float64:
		return fmt.Sprint(v)
	case string:
		return fmt.Sprintf("%.40q", v)
	case pickleGlobal:
		return string(v)
	case pickleTuple:
		return fmt.Sprintf("a tuple of %d", len(v))
	case *pickleList:
		return "a list"
	case *pickleDict:
		return "a dictionary"
	case pickleStorage:
		return "a storage"
	case *pickleTensor:
		return "a tensor"
	}
	return "a mark"
}
