package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"runtime/debug"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// lockTimeout bounds the wait for another process to let go of the file.
const lockTimeout = time.Second

// openBolt checks a bolt file as a whole and opens it, or creates it.
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

// checkBolt checks both headers and all pages of the file, if there is one. bbolt panics or faults
// on some damage; checkBolt returns an error for it.
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

	// First what can be read without following a pointer: bbolt looks for free pages as it opens a
	// file to write to, on a goroutine of its own, whose fault at a page that is cut off would end
	// the process.
	readOnly := *options
	readOnly.ReadOnly = true
	if err := withBolt(path, &readOnly, checkExtent); err != nil {
		return err
	}
	return withBolt(path, options, checkPages)
}

// withBolt opens a bolt file and runs check on it.
func withBolt(path string, options *bbolt.Options, check func(path string, db *bbolt.DB) error) (err error) {
	db, err := bbolt.Open(path, 0o600, options)
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return fmt.Errorf("raft log %s is locked by another coordinator, want it to ourselves", path)
	} else if err != nil {
		return fmt.Errorf("raft log %s: %w: %w", path, errDamaged, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return check(path, db)
}

// checkExtent checks both headers, and that the file has all pages that they count.
func checkExtent(path string, db *bbolt.DB) error {
	if err := checkHeaders(path, db.Info().PageSize); err != nil {
		return err
	}
	return db.View(func(tx *bbolt.Tx) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("raft log %s: %w: it has %d bytes, want the %d of its header",
				path, errDamaged, info.Size(), tx.Size())
		}
		return nil
	})
}

// checkPages follows all pages.
func checkPages(path string, db *bbolt.DB) error {
	return db.View(func(tx *bbolt.Tx) error {
		var first error
		for err := range tx.Check() {
			if first == nil {
				first = fmt.Errorf("raft log %s: %w: %w", path, errDamaged, err)
			}
		}
		return first
	})
}

// checkHeaders checks the checksums of both of bolt's headers. Bolt writes them in turn and opens
// the file by the newest one whose checksum holds. If the newer header is damaged, that is the
// older one: the last write would be lost, and with it a vote or an entry that this replica has
// acknowledged. A crash does not explain a damaged header, because each lies within one sector.
func checkHeaders(path string, pageSize int) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("raft log: %w", err)
	}
	defer f.Close()
	const pageHeader = 16 // bytes of the page before bolt's header
	const body = 56       // bytes of bolt's header that its checksum covers
	for i := range 2 {
		var raw [body + 8]byte
		if _, err := f.ReadAt(raw[:], int64(i*pageSize)+pageHeader); err != nil {
			return fmt.Errorf("raft log %s: %w: header %d: %w", path, errDamaged, i, err)
		}
		h := fnv.New64a()
		h.Write(raw[:body])
		if got, want := h.Sum64(), binary.NativeEndian.Uint64(raw[body:]); got != want {
			return fmt.Errorf("raft log %s: %w: header %d has checksum %016x, want %016x",
				path, errDamaged, i, got, want)
		}
	}
	return nil
}
