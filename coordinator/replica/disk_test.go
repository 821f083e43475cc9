package replica_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/internal/replicatest"
	"github.com/dptune/dpt/coordinator/replica"
)

// logFile is the name of the log's file in a data directory.
const logFile = "raft.db"

// open opens a replica that is alone.
func open(dir string) (*replica.Node, error) {
	return replica.Open(dir, replica.Storage{}, nil, 0, slog.New(slog.DiscardHandler))
}

// dirWithTenSteps is a data directory with a job of ten steps, in a snapshot or in the log alone.
func dirWithTenSteps(t *testing.T, snapshot bool) string {
	t.Helper()
	dir := t.TempDir()
	n := replicatest.OpenLeader(t, dir)
	replicatest.Commit(t, n, replicatest.Start(100)...)
	replicatest.Commit(t, n, replicatest.Steps(1, 10, 6000)...)
	stop := n.Stop
	if snapshot {
		stop = n.Close
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestNodeGoesOnFromDisk(t *testing.T) {
	for _, snapshot := range []bool{false, true} {
		dir := dirWithTenSteps(t, snapshot)
		n := replicatest.OpenLeader(t, dir)
		n.View(func(m *fsm.Machine) {
			if m.Step() != 10 {
				t.Errorf("after a restart (snapshot %v) the step is %d, want 10", snapshot, m.Step())
			}
		})
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFlippedBitInTheLog: a bit that flips anywhere in the log's file is found at the start, or
// does not matter.
func TestFlippedBitInTheLog(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	good, err := os.ReadFile(filepath.Join(dirWithTenSteps(t, false), logFile))
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for at := 40; at < len(good); at += 1 + len(good)/61 {
		bad := bytes.Clone(good)
		bad[at] ^= 0x10
		dir := t.TempDir()
		path := filepath.Join(dir, logFile)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := open(dir)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Errorf("byte %d flipped: error %v, want one that names the file", at, err)
			}
			refused++
			continue
		}
		replicatest.AwaitLeadership(t, n)
		n.View(func(m *fsm.Machine) {
			if m.Step() != 10 || m.State()[0] != 'A'+10 {
				t.Errorf("byte %d flipped: started with step %d, want 10 or an error", at, m.Step())
			}
		})
		if err := n.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("no flipped byte was found")
	}
	t.Logf("%d of some 60 flipped bytes refused; the others were in free pages", refused)
}

func TestFlippedBitInAnEntryNamesIt(t *testing.T) {
	dir := dirWithTenSteps(t, false)
	path := filepath.Join(dir, logFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, bytes.Repeat([]byte{'A' + 7}, 5000)) // in step 7's state
	if at < 0 {
		t.Fatal("step 7's state is not in the log's file")
	}
	data[at+4000] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = open(dir)
	if !errors.Is(err, replica.ErrDamaged) {
		t.Fatalf("error %v, want one about damage", err)
	}
	for _, want := range []string{path, "entry 1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func TestTruncatedLog(t *testing.T) {
	dir := dirWithTenSteps(t, false)
	path := filepath.Join(dir, logFile)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{1, 4096, info.Size() / 2} {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		if _, err := open(dir); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("log cut to %d bytes: error %v, want one that names the file", size, err)
		}
	}
}

// A log that is cut anywhere is refused by name, unless only free pages are gone.
func TestLogCutAnywhere(t *testing.T) {
	t.Parallel()
	whole, err := os.ReadFile(filepath.Join(dirWithTenSteps(t, false), logFile))
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	const cuts = 60
	for i := range cuts {
		dir := t.TempDir()
		path := filepath.Join(dir, logFile)
		size := len(whole)*(i+1)/(cuts+1) + i*7
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := open(dir)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Errorf("log cut to %d of %d bytes: error %v, want one that names the file", size, len(whole), err)
			}
			refused++
			continue
		}
		replicatest.AwaitLeadership(t, n)
		if got := n.Status().Step; got != 10 {
			t.Errorf("log cut to %d of %d bytes: step %d, want 10 or an error", size, len(whole), got)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("no cut was found")
	}
	t.Logf("%d of %d cuts refused", refused, cuts)
}

func TestDamagedSnapshot(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"flipped":   func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"truncated": func(b []byte) []byte { return b[:len(b)/2] },
		"metadata":  func(b []byte) []byte { return bytes.Replace(b, []byte(`"Index":`), []byte(`"Index":1`), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n := replicatest.OpenLeader(t, dir)
			replicatest.Commit(t, n, replicatest.Start(1000)...)
			replicatest.Commit(t, n, replicatest.Steps(1, 400, 10)...)
			if err := n.Close(); err != nil { // its snapshot replaces the first entries of the log
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(dir, "snapshots", "*"+replica.SnapshotExt))
			if err != nil || len(files) == 0 {
				t.Fatalf("snapshots %v, %v", files, err)
			}
			for _, path := range files {
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, damage(data), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			newest := files[len(files)-1]
			if _, err := open(dir); !errors.Is(err, replica.ErrDamaged) || !strings.Contains(err.Error(), newest) {
				t.Errorf("error %v, want one about damage that names %s", err, newest)
			}
		})
	}
}

// TestUnreadableCommittedEntryStopsTheReplica: a replica that cannot apply an entry which the
// others apply stops, because it would hold another state.
func TestUnreadableCommittedEntryStopsTheReplica(t *testing.T) {
	n := replicatest.OpenLeader(t, t.TempDir())
	defer n.Stop()
	replicatest.Commit(t, n, replicatest.Start(10)...)
	if err := n.ApplyRaw([]byte("what a newer version might write")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-n.Broken():
		if !strings.Contains(err.Error(), "cannot be applied here") {
			t.Errorf("replica ends with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the replica goes on")
	}
	if err := n.Propose(replicatest.Steps(1, 1, 4)[0]).Wait(); err == nil {
		t.Error("a step was applied after an entry that could not be")
	}
	n.View(func(m *fsm.Machine) {
		if m.Step() != 0 {
			t.Errorf("step %d after an entry that could not be applied, want 0", m.Step())
		}
	})
}

// TestFailedWriteStopsTheReplica: a write that fails is final, because after a failed fsync nobody
// knows what is on disk.
func TestFailedWriteStopsTheReplica(t *testing.T) {
	n := replicatest.OpenLeader(t, t.TempDir())
	defer n.Stop()
	replicatest.Commit(t, n, replicatest.Start(10)...)
	if err := n.CloseStore(); err != nil { // the disk goes
		t.Fatal(err)
	}
	if err := n.Propose(replicatest.Steps(1, 1, 4)[0]).Wait(); err == nil {
		t.Error("a step was committed without a disk")
	}
	select {
	case err := <-n.Broken():
		for _, want := range []string{n.LogPath(), bbolterrors.ErrDatabaseNotOpen.Error()} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("replica ends with %v, want an error with %q", err, want)
			}
		}
	case <-time.After(time.Minute):
		t.Fatal("the replica goes on")
	}
	if err := n.StoreLog(&raft.Log{Index: 99}); err == nil {
		t.Error("a later write was taken")
	}
}
