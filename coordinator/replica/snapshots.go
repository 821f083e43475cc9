package replica

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dptune/dpt/model/checkpoint"
)

const (
	snapshotMagic = "dptsnap1"
	snapshotExt   = ".snapshot"
	// maxSnapshot bounds a snapshot that another replica sends.
	maxSnapshot = 512 << 20
)

// snapshotDir is a raft.SnapshotStore with a file for each snapshot: magic, the length of the
// metadata, the metadata as JSON, the machine, and the SHA-256 of all that. The digest covers the
// metadata too: an index that is off by one would leave out an entry in silence. A file is written
// aside, fsynced and renamed, so that a torn one is never listed.
type snapshotDir struct {
	dir    string
	logger *slog.Logger
}

func openSnapshots(dir string, logger *slog.Logger) (*snapshotDir, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("snapshots: %w", err)
	}
	return &snapshotDir{dir: dir, logger: logger}, nil
}

// Create implements raft.SnapshotStore.
func (d *snapshotDir) Create(
	version raft.SnapshotVersion,
	index, term uint64,
	conf raft.Configuration,
	confIndex uint64,
	_ raft.Transport,
) (raft.SnapshotSink, error) {
	meta := raft.SnapshotMeta{
		Version:            version,
		ID:                 fmt.Sprintf("%d-%d-%d", term, index, time.Now().UnixMilli()),
		Index:              index,
		Term:               term,
		Configuration:      conf,
		ConfigurationIndex: confIndex,
	}
	return &snapshotSink{dir: d, meta: meta}, nil
}

// List implements raft.SnapshotStore: the snapshots that can be read, newest first. It logs damaged
// ones and leaves them out; raft refuses to start if the log does not reach back far enough without
// them.
func (d *snapshotDir) List() ([]*raft.SnapshotMeta, error) {
	list, bad, err := d.all()
	if err != nil {
		return nil, err
	}
	if bad != nil {
		d.logger.Error("snapshot left aside", "reason", bad)
	}
	return list[:min(len(list), keptSnapshots)], nil
}

// all returns the good snapshots, newest first, and in bad what is wrong with the others.
func (d *snapshotDir) all() (list []*raft.SnapshotMeta, bad, err error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshots: %w", err)
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), snapshotExt)
		if !ok {
			continue
		}
		meta, _, err := d.read(id)
		if err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		list = append(list, meta)
	}
	slices.SortFunc(list, func(a, b *raft.SnapshotMeta) int {
		return cmp.Or(cmp.Compare(b.Term, a.Term), cmp.Compare(b.Index, a.Index), strings.Compare(b.ID, a.ID))
	})
	return list, bad, nil
}

// Open implements raft.SnapshotStore.
func (d *snapshotDir) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, body, err := d.read(id)
	if err != nil {
		return nil, nil, err
	}
	return meta, io.NopCloser(bytes.NewReader(body)), nil
}

func (d *snapshotDir) path(id string) string { return filepath.Join(d.dir, id+snapshotExt) }

// read reads and checks the snapshot of an id.
func (d *snapshotDir) read(id string) (*raft.SnapshotMeta, []byte, error) {
	data, err := os.ReadFile(d.path(id))
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot: %w", err)
	}
	meta, body, err := parseSnapshot(data)
	if err == nil && meta.ID != id {
		err = fmt.Errorf("%w: it holds snapshot %s", errDamaged, meta.ID)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot %s: %w", d.path(id), err)
	}
	return meta, body, nil
}

// parseSnapshot checks a snapshot's file and returns its metadata and the encoded machine.
func parseSnapshot(data []byte) (*raft.SnapshotMeta, []byte, error) {
	head := len(snapshotMagic) + 4
	if len(data) < head+sha256.Size {
		return nil, nil, fmt.Errorf("%w: %d bytes, want at least %d", errDamaged, len(data), head+sha256.Size)
	}
	content, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if got := sha256.Sum256(content); !bytes.Equal(got[:], sum) {
		return nil, nil, fmt.Errorf("%w: %d bytes have digest %x, want %x", errDamaged, len(content), got[:6], sum[:6])
	}
	if string(content[:len(snapshotMagic)]) != snapshotMagic {
		return nil, nil, fmt.Errorf("starts with %q, want %q", content[:len(snapshotMagic)], snapshotMagic)
	}
	n := uint64(binary.LittleEndian.Uint32(content[len(snapshotMagic):]))
	if n > uint64(len(content)-head) {
		return nil, nil, fmt.Errorf("%w: %d bytes of metadata in a file of %d", errDamaged, n, len(data))
	}
	meta := new(raft.SnapshotMeta)
	if err := json.Unmarshal(content[head:head+int(n)], meta); err != nil {
		return nil, nil, fmt.Errorf("metadata: %w", err)
	}
	return meta, content[head+int(n):], nil
}

// snapshotSink collects a snapshot in memory; Close writes it to disk. One goroutine of raft's uses
// it.
type snapshotSink struct {
	dir  *snapshotDir
	meta raft.SnapshotMeta
	body bytes.Buffer
	done bool // closed or cancelled
}

// ID implements raft.SnapshotSink.
func (s *snapshotSink) ID() string { return s.meta.ID }

// Write implements raft.SnapshotSink.
func (s *snapshotSink) Write(p []byte) (int, error) {
	if s.body.Len()+len(p) > maxSnapshot {
		return 0, fmt.Errorf("snapshot of %d bytes or more, want at most %d", s.body.Len()+len(p), maxSnapshot)
	}
	return s.body.Write(p)
}

// Close implements raft.SnapshotSink. The snapshot is on disk when it returns nil.
func (s *snapshotSink) Close() error {
	if s.done {
		return nil
	}
	s.done = true
	s.meta.Size = int64(s.body.Len())
	meta, err := json.Marshal(s.meta)
	if err != nil {
		return fmt.Errorf("snapshot metadata: %w", err)
	}
	data := append([]byte(snapshotMagic), binary.LittleEndian.AppendUint32(nil, uint32(len(meta)))...)
	data = append(append(data, meta...), s.body.Bytes()...)
	sum := sha256.Sum256(data)
	if err := checkpoint.WriteFileAtomic(s.dir.path(s.meta.ID), append(data, sum[:]...)); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return s.dir.reap()
}

// Cancel implements raft.SnapshotSink.
func (s *snapshotSink) Cancel() error { s.done = true; return nil }

// reap removes all but the newest of the good snapshots.
func (d *snapshotDir) reap() error {
	list, _, err := d.all()
	if err != nil {
		return err
	}
	for _, meta := range list[min(len(list), keptSnapshots):] {
		if err := os.Remove(d.path(meta.ID)); err != nil {
			return fmt.Errorf("remove an old snapshot: %w", err)
		}
	}
	return nil
}
