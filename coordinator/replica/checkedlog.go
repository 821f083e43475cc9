package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// errDamaged is in the chain of every error about data on disk that cannot be trusted.
var errDamaged = errors.New("damaged")

// lockTimeout bounds the wait for another process to let go of the file.
const lockTimeout = time.Second

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkedLog is raft's log and its vote, in one bolt file. Bolt guards its file's header alone; the
// checked log adds a checksum to every entry, which covers the entry's place in the log too, and to
// every value, and checks it at each read.
//
// What it cannot read or write ends the replica: fail hears why, once, and every later write fails
// too, because after a failed fsync nobody knows what is on disk. raft answers a failed read of the
// log, or a term it cannot save, by a panic on a goroutine of its own; the checked log ends that
// goroutine instead, so that the process can stop in good order.
type checkedLog struct {
	path    string
	store   LogStore
	fail    func(error)
	running atomic.Bool // raft's goroutines run: an error may not reach them

	mu     sync.Mutex
	broken error
}

// openBolt opens or creates the file after checking it as a whole.
func openBolt(path string) (LogStore, error) {
	options := &bbolt.Options{Timeout: lockTimeout, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}
	if err := checkBolt(path, options); err != nil {
		return nil, err
	}
	store, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: options})
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	return store, nil
}

// checkBolt walks all pages of the file, where there is one.
func checkBolt(path string, options *bbolt.Options) (err error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("raft log %s: %w: %v", path, errDamaged, r)
		}
	}()
	db, err := bbolt.Open(path, 0o600, options)
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return fmt.Errorf("raft log %s is locked by another coordinator, want it to ourselves", path)
	} else if err != nil {
		return fmt.Errorf("raft log %s: %w: %w", path, errDamaged, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := checkHeaders(path, db.Info().PageSize); err != nil {
		return err
	}
	return db.View(func(tx *bbolt.Tx) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("raft log %s: %w: it has %d bytes, its header says %d", path, errDamaged, info.Size(), tx.Size())
		}
		var first error
		for err := range tx.Check() {
			if first == nil {
				first = fmt.Errorf("raft log %s: %w: %w", path, errDamaged, err)
			}
		}
		return first
	})
}

// checkHeaders wants both of bolt's two headers to hold. Bolt writes them in turn and opens the
// file by the newer one that holds; if that is the older one, the last write is gone, and with it
// what this replica has given its word for. Each lies within one sector, so that a torn write is no
// excuse.
func checkHeaders(path string, pageSize int) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("raft log: %w", err)
	}
	defer f.Close()
	const pageHeader, body = 16, 56 // bytes before the header in its page, and under its checksum
	for i := range 2 {
		var raw [body + 8]byte
		if _, err := f.ReadAt(raw[:], int64(i*pageSize)+pageHeader); err != nil {
			return fmt.Errorf("raft log %s: %w: header %d: %w", path, errDamaged, i, err)
		}
		h := fnv.New64a()
		h.Write(raw[:body])
		if got, want := h.Sum64(), binary.NativeEndian.Uint64(raw[body:]); got != want {
			return fmt.Errorf("raft log %s: %w: header %d has checksum %016x, want %016x", path, errDamaged, i, got, want)
		}
	}
	return nil
}

func (l *checkedLog) close() error { return l.store.Close() }

// halt reports an error from which there is no way on, and returns it, or ends the goroutine if it
// is raft's.
func (l *checkedLog) halt(err error) error {
	l.mu.Lock()
	if l.broken == nil {
		l.broken = err
	}
	l.mu.Unlock()
	l.fail(err)
	if l.running.Load() {
		runtime.Goexit()
	}
	return err
}

func (l *checkedLog) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// read runs f, which reads bolt's pages, and makes an error of a panic in it.
func (l *checkedLog) read(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	return f()
}

// write runs f unless a write has failed before; a failure is final.
func (l *checkedLog) write(what string, f func() error) error {
	if err := l.err(); err != nil {
		return err
	}
	if err := l.read(f); err != nil {
		err = fmt.Errorf("raft log %s: write %s: %w", l.path, what, err)
		l.mu.Lock()
		l.broken = err
		l.mu.Unlock()
		l.fail(err)
		return err
	}
	return nil
}

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
	return l.end("first", l.store.FirstIndex)
}

// LastIndex implements raft.LogStore.
func (l *checkedLog) LastIndex() (index uint64, err error) { return l.end("last", l.store.LastIndex) }

func (l *checkedLog) end(which string, f func() (uint64, error)) (index uint64, err error) {
	if err := l.read(func() error { index, err = f(); return err }); err != nil {
		return 0, l.halt(fmt.Errorf("raft log %s: %s entry: %w", l.path, which, err))
	}
	return index, nil
}

// GetLog implements raft.LogStore.
func (l *checkedLog) GetLog(index uint64, entry *raft.Log) error {
	err := l.read(func() error { return l.store.GetLog(index, entry) })
	switch {
	case errors.Is(err, raft.ErrLogNotFound):
		return err
	case err != nil:
		return l.halt(fmt.Errorf("raft log %s: entry %d: %w", l.path, index, err))
	case entry.Index != index:
		return l.halt(fmt.Errorf("raft log %s: entry %d: %w: found entry %d in its place", l.path, index, errDamaged, entry.Index))
	}
	if want := entrySum(entry); string(want) != string(entry.Extensions) && !plantedNoChecksum {
		return l.halt(fmt.Errorf("raft log %s: entry %d: %w: checksum is %x, want %x", l.path, index, errDamaged, want, entry.Extensions))
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
	return l.write(fmt.Sprintf("entries %d to %d", logs[0].Index, logs[len(logs)-1].Index), func() error { return l.store.StoreLogs(sealed) })
}

// DeleteRange implements raft.LogStore.
func (l *checkedLog) DeleteRange(min, max uint64) error {
	return l.write(fmt.Sprintf("the end of entries %d to %d", min, max), func() error { return l.store.DeleteRange(min, max) })
}

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
	err = l.read(func() error { value, err = l.store.Get(key); return err })
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return nil, err
	} else if err != nil {
		return nil, l.halt(fmt.Errorf("raft log %s: value %s: %w", l.path, key, err))
	}
	n := len(value) - crc32.Size
	if n < 0 || string(valueSum(key, value[:n])) != string(value[n:]) {
		return nil, l.halt(fmt.Errorf("raft log %s: value %s: %w: the checksum of %d bytes does not hold", l.path, key, errDamaged, len(value)))
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
