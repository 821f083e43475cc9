package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// errDamaged is wrapped by every error about data on disk that cannot be trusted.
var errDamaged = errors.New("damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkedLog is raft's log and its vote, in one bolt file. Bolt has checksums for its headers only;
// the checked log adds one to every entry, which covers the entry's index and term too, and one to
// every value, and checks them at each read. It implements raft.LogStore and raft.StableStore.
//
// A failed read or write ends the replica: the checked log passes the reason to fail and refuses
// every later write, because after a failed fsync nobody knows what is on disk. raft panics, on a
// goroutine of its own, if it cannot read its log or save its term. The checked log ends that
// goroutine before it can panic, so that the process can stop in good order.
type checkedLog struct {
	path    string // of the file, for errors
	store   LogStore
	fail    func(error) // ends the replica; any goroutine may call it, any number of times
	running atomic.Bool // raft's goroutines call; set once raft has started

	mu     sync.Mutex
	broken error // why writes are refused; nil while they are not. Under mu
}

func (l *checkedLog) close() error { return l.store.Close() }

// setBroken refuses all later writes and ends the replica.
func (l *checkedLog) setBroken(err error) {
	l.mu.Lock()
	if l.broken == nil {
		l.broken = err
	}
	l.mu.Unlock()
	l.fail(err)
}

// halt is setBroken for an error that raft would answer by a panic. It returns err, or ends the
// goroutine if it is one of raft's.
func (l *checkedLog) halt(err error) error {
	l.setBroken(err)
	if l.running.Load() {
		runtime.Goexit()
	}
	return err
}

// err is why writes are refused; nil while they are not.
func (l *checkedLog) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// guard runs f, which reads or writes bolt's pages, and returns an error in place of a panic or a
// fault.
func (l *checkedLog) guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	return f()
}

// write runs f, unless the log is broken; a failure breaks it. what names the data in the error.
func (l *checkedLog) write(what string, f func() error) error {
	if err := l.err(); err != nil {
		return err
	}
	if err := l.guard(f); err != nil {
		err = fmt.Errorf("raft log %s: write %s: %w", l.path, what, err)
		l.setBroken(err)
		return err
	}
	return nil
}

// entrySum is the checksum of an entry: of its index, term, type and data.
func entrySum(l *raft.Log) []byte {
	var head [17]byte
	binary.LittleEndian.PutUint64(head[0:], l.Index)
	binary.LittleEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	sum := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, l.Data)
	return binary.LittleEndian.AppendUint32(nil, sum)
}

// FirstIndex implements raft.LogStore.
func (l *checkedLog) FirstIndex() (index uint64, err error) {
	return l.endIndex("first", l.store.FirstIndex)
}

// LastIndex implements raft.LogStore.
func (l *checkedLog) LastIndex() (index uint64, err error) {
	return l.endIndex("last", l.store.LastIndex)
}

// endIndex returns the index of the first or the last entry, which f reads.
func (l *checkedLog) endIndex(which string, f func() (uint64, error)) (index uint64, err error) {
	if err := l.guard(func() error { index, err = f(); return err }); err != nil {
		return 0, l.halt(fmt.Errorf("raft log %s: %s entry: %w", l.path, which, err))
	}
	return index, nil
}

// GetLog implements raft.LogStore.
func (l *checkedLog) GetLog(index uint64, entry *raft.Log) error {
	err := l.guard(func() error { return l.store.GetLog(index, entry) })
	switch {
	case errors.Is(err, raft.ErrLogNotFound):
		return err
	case err != nil:
		return l.halt(fmt.Errorf("raft log %s: entry %d: %w", l.path, index, err))
	case entry.Index != index:
		return l.halt(fmt.Errorf("raft log %s: entry %d: %w: found entry %d in its place",
			l.path, index, errDamaged, entry.Index))
	}
	if want := entrySum(entry); string(want) != string(entry.Extensions) && !plantedNoChecksum {
		return l.halt(fmt.Errorf("raft log %s: entry %d: %w: checksum is %x, want %x",
			l.path, index, errDamaged, want, entry.Extensions))
	}
	entry.Extensions = nil
	return nil
}

// StoreLog implements raft.LogStore.
func (l *checkedLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore. The entries are on disk when it returns nil.
func (l *checkedLog) StoreLogs(logs []*raft.Log) error {
	sealed := make([]*raft.Log, len(logs))
	for i, entry := range logs {
		c := *entry
		c.Extensions = entrySum(entry)
		sealed[i] = &c
	}
	what := fmt.Sprintf("entries %d to %d", logs[0].Index, logs[len(logs)-1].Index)
	return l.write(what, func() error { return l.store.StoreLogs(sealed) })
}

// DeleteRange implements raft.LogStore.
func (l *checkedLog) DeleteRange(min, max uint64) error {
	what := fmt.Sprintf("the removal of entries %d to %d", min, max)
	return l.write(what, func() error { return l.store.DeleteRange(min, max) })
}

// valueSum is the checksum of a value under its key.
func valueSum(key, value []byte) []byte {
	return binary.LittleEndian.AppendUint32(nil, crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value))
}

// Set implements raft.StableStore.
func (l *checkedLog) Set(key, value []byte) error {
	sealed := append(append([]byte(nil), value...), valueSum(key, value)...)
	if err := l.write(string(key), func() error { return l.store.Set(key, sealed) }); err != nil {
		return l.halt(err)
	}
	return nil
}

// Get implements raft.StableStore.
func (l *checkedLog) Get(key []byte) (value []byte, err error) {
	err = l.guard(func() error { value, err = l.store.Get(key); return err })
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return nil, err
	} else if err != nil {
		return nil, l.halt(fmt.Errorf("raft log %s: value %s: %w", l.path, key, err))
	}
	n := len(value) - crc32.Size
	if n < 0 || string(valueSum(key, value[:n])) != string(value[n:]) {
		return nil, l.halt(fmt.Errorf("raft log %s: value %s: %w: the checksum of its %d bytes does not hold",
			l.path, key, errDamaged, len(value)))
	}
	return value[:n], nil
}

// SetUint64 implements raft.StableStore.
func (l *checkedLog) SetUint64(key []byte, v uint64) error {
	return l.Set(key, binary.BigEndian.AppendUint64(nil, v))
}

// GetUint64 implements raft.StableStore.
func (l *checkedLog) GetUint64(key []byte) (uint64, error) {
	value, err := l.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, l.halt(fmt.Errorf("raft log %s: value %s: %w: %d bytes, want 8", l.path, key, errDamaged, len(value)))
	}
	return binary.BigEndian.Uint64(value), nil
}
