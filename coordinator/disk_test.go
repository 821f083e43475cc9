package coordinator

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
)

// openLed opens a node that is alone and waits until it leads.
func openLed(t *testing.T, dir string) *node {
	t.Helper()
	n, err := openNode(dir, Storage{}, nil, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	awaitLead(t, n)
	return n
}

func awaitLead(t *testing.T, n *node) {
	t.Helper()
	for {
		select {
		case lead := <-n.leadership:
			if lead {
				if err := n.raft.Barrier(0).Error(); err != nil {
					t.Fatal(err)
				}
				return
			}
		case <-time.After(time.Minute):
			t.Fatal("the node does not lead")
		}
	}
}

func commitAll(t *testing.T, n *node, entries ...*fsmpb.Entry) {
	t.Helper()
	for _, e := range entries {
		if err := committed(n.propose(e)); err != nil {
			t.Fatal(err)
		}
	}
}

func started(total int64) []*fsmpb.Entry {
	state := []byte("state 0")
	d := ids.Sum(state)
	return []*fsmpb.Entry{
		{Body: &fsmpb.Entry_JobStarted{JobStarted: &fsmpb.JobStarted{JobId: "job", Spec: []byte(`{}`), TotalSteps: total, StepsPerEpoch: total, State: state, StateDigest: d[:]}}},
		{Body: &fsmpb.Entry_GenerationStarted{GenerationStarted: &fsmpb.GenerationStarted{Generation: 1, Members: []*fsmpb.Member{{Id: "w", Addr: "w:1"}}}}},
	}
}

// steps makes entries of steps with states of the given size, each filled with a byte that tells it.
func steps(from, to int64, size int) (list []*fsmpb.Entry) {
	for t := from; t <= to; t++ {
		state := bytes.Repeat([]byte{byte('A' + t%20)}, size)
		d, b := ids.Sum(state), ids.Sum([]byte{byte(t)})
		list = append(list, &fsmpb.Entry{Body: &fsmpb.Entry_StepCommitted{StepCommitted: &fsmpb.StepCommitted{
			Generation: 1, Step: t, BatchDigest: b[:], StateDigest: d[:], State: state, LossSum: 1, Tokens: 1, Workers: 1}}})
	}
	return list
}

// filled leaves a data directory with a job of ten steps in it.
func filled(t *testing.T, snapshot bool) string {
	t.Helper()
	dir := t.TempDir()
	n := openLed(t, dir)
	commitAll(t, n, append(started(100), steps(1, 10, 6000)...)...)
	stop := n.stop
	if snapshot {
		stop = n.close
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestNodeGoesOnFromDisk(t *testing.T) {
	for _, snapshot := range []bool{false, true} {
		dir := filled(t, snapshot)
		n := openLed(t, dir)
		n.view(func(m *fsm.Machine) {
			if m.Step() != 10 {
				t.Errorf("after a restart (snapshot %v) the step is %d, want 10", snapshot, m.Step())
			}
		})
		if err := n.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A bit that flips anywhere in the log's file is found at the start, or does not matter.
func TestFlippedBitInTheLog(t *testing.T) {
	dir := filled(t, false)
	path := filepath.Join(dir, "raft.db")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for at := 40; at < len(good); at += 1 + len(good)/61 {
		bad := bytes.Clone(good)
		bad[at] ^= 0x10
		next := t.TempDir()
		if err := os.WriteFile(filepath.Join(next, "raft.db"), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := openNode(next, Storage{}, nil, 0, slog.New(slog.DiscardHandler))
		if err != nil {
			if !strings.Contains(err.Error(), filepath.Join(next, "raft.db")) {
				t.Errorf("byte %d flipped: error %v does not name the file", at, err)
			}
			refused++
			continue
		}
		awaitLead(t, n)
		n.view(func(m *fsm.Machine) {
			if m.Step() != 10 || m.State()[0] != 'A'+10 {
				t.Errorf("byte %d flipped: started with step %d, want 10 or an error", at, m.Step())
			}
		})
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("no flipped byte was found")
	}
	t.Logf("%d of some 60 flipped bytes refused, the others were in free pages", refused)
}

func TestFlippedBitInAnEntryNamesIt(t *testing.T) {
	dir := filled(t, false)
	path := filepath.Join(dir, "raft.db")
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
	_, err = openNode(dir, Storage{}, nil, 0, slog.New(slog.DiscardHandler))
	if err == nil || !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "entry 1") {
		t.Errorf("error %v, want one that names the file and the entry", err)
	}
}

func TestTruncatedLog(t *testing.T) {
	dir := filled(t, false)
	path := filepath.Join(dir, "raft.db")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{1, 4096, info.Size() / 2} {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		if _, err := openNode(dir, Storage{}, nil, 0, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("log cut to %d bytes: error %v, want one that names the file", size, err)
		}
	}
}

func TestDamagedSnapshot(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"flipped":   func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"truncated": func(b []byte) []byte { return b[:len(b)/2] },
		"metadata":  func(b []byte) []byte { return bytes.Replace(b, []byte(`"Index":`), []byte(`"Index":1`), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n := openLed(t, dir)
			commitAll(t, n, append(started(1000), steps(1, 400, 10)...)...)
			if err := n.close(); err != nil { // its snapshot lets the log forget the first steps
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(dir, "snapshots", "*"+snapshotExt))
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
			if _, err := openNode(dir, Storage{}, nil, 0, slog.New(slog.DiscardHandler)); err == nil || !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), files[len(files)-1]) {
				t.Errorf("error %v, want one that names %s", err, files[len(files)-1])
			}
		})
	}
}

// An entry that all replicas hold and this one cannot read must stop it: to go on would be to hold another state.
func TestUnreadableCommittedEntryStopsTheReplica(t *testing.T) {
	n := openLed(t, t.TempDir())
	defer n.stop()
	commitAll(t, n, started(10)...)
	if err := n.raft.Apply([]byte("what a newer version might write"), 0).Error(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-n.broken:
		if !strings.Contains(err.Error(), "cannot be applied here") {
			t.Errorf("replica ends with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the replica goes on")
	}
	if err := committed(n.propose(steps(1, 1, 4)[0])); err == nil {
		t.Error("a step was applied after an entry that could not be")
	}
	n.view(func(m *fsm.Machine) {
		if m.Step() != 0 {
			t.Errorf("step %d after an entry that could not be applied, want 0", m.Step())
		}
	})
}

// A write that fails is final: after a failed fsync nobody knows what is on disk.
func TestFailedWriteStopsTheReplica(t *testing.T) {
	n := openLed(t, t.TempDir())
	defer n.stop()
	commitAll(t, n, started(10)...)
	if err := n.journal.store.Close(); err != nil { // the disk goes
		t.Fatal(err)
	}
	if err := committed(n.propose(steps(1, 1, 4)[0])); err == nil {
		t.Error("a step was committed without a disk")
	}
	select {
	case err := <-n.broken:
		if !strings.Contains(err.Error(), n.journal.path) || !strings.Contains(err.Error(), bbolterrors.ErrDatabaseNotOpen.Error()) {
			t.Errorf("replica ends with %v, want an error that names %s", err, n.journal.path)
		}
	case <-time.After(time.Minute):
		t.Fatal("the replica goes on")
	}
	if err := n.journal.StoreLog(&raft.Log{Index: 99}); err == nil {
		t.Error("a later write was taken")
	}
}

// A stranger on the raft port is sent away and harms nobody.
func TestStrangerOnTheRaftPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	n, err := openNode(t.TempDir(), Storage{}, &Replication{ID: "a", Peers: []Peer{{"a", addr}}, Listener: l}, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer n.stop()
	awaitLead(t, n)
	for name, says := range map[string]string{"web": "GET / HTTP/1.1\r\n\r\n", "newer": "dptraft\x09xxxx", "garbage": raftGreeting + strings.Repeat("\xff", 4096)} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, says); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: answered %q, %v; want the connection closed", name, got, err)
		}
		c.Close()
	}
	commitAll(t, n, started(10)...)
}
