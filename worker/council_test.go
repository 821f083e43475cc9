package worker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/outputs"
	"github.com/dptune/dpt/coordinator/replica"
	"github.com/dptune/dpt/worker"
)

// Whole clusters in one process: replicas of the coordinator that talk raft over loopback, and workers. The tests cut
// connections, stop replicas and start them again.

// wires are connections that can be cut by the name of either end.
type wires struct {
	mu    sync.Mutex
	cut   map[string]bool
	conns map[net.Conn][2]string
	names map[string]string // by address
}

func newWires() *wires {
	return &wires{cut: map[string]bool{}, conns: map[net.Conn][2]string{}, names: map[string]string{}}
}

var errCut = errors.New("the wire is cut")

// take keeps a connection until one of its ends is cut.
func (w *wires) take(c net.Conn, from, to string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut[from] || w.cut[to] {
		return nil, errors.Join(errCut, c.Close())
	}
	t := &wire{Conn: c, wires: w}
	w.conns[t] = [2]string{from, to}
	return t, nil
}

func (w *wires) dialFrom(from string) replica.DialFunc {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		w.mu.Lock()
		to := w.names[addr]
		w.mu.Unlock()
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return w.take(c, from, to)
	}
}

// set cuts or heals all that reaches name.
func (w *wires) set(name string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[name] = cut
	for c, ends := range w.conns {
		if cut && (ends[0] == name || ends[1] == name) {
			delete(w.conns, c)
			c.(*wire).Conn.Close()
		}
	}
}

type wire struct {
	net.Conn
	wires *wires
}

func (c *wire) Close() error {
	c.wires.mu.Lock()
	delete(c.wires.conns, c)
	c.wires.mu.Unlock()
	return c.Conn.Close()
}

// tapped is a listener whose connections can be cut.
type tapped struct {
	net.Listener
	wires *wires
	name  string
}

func (l *tapped) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if t, err := l.wires.take(c, "", l.name); err == nil {
			return t, nil
		}
	}
}

// council is a replicated coordinator and its workers.
type council struct {
	t        *testing.T
	settings job.Settings
	change   func(*coordinator.Config)
	raft     *wires // between replicas
	work     *wires // from workers
	dir      string
	peers    []replica.Peer
	seats    map[string]*seat
	wg       sync.WaitGroup

	mu     sync.Mutex
	leader string
	led    int
}

// seat is a replica's place: what stays when its process goes.
type seat struct {
	id, out    string
	workerAddr string
	raftAddr   string
	join       bool
	stop       context.CancelFunc
	result     chan outcome
	steps      chan ids.Step
}

func newCouncil(t *testing.T, s job.Settings, ids ...string) *council {
	t.Helper()
	noLeaks(t)
	c := &council{t: t, settings: s, raft: newWires(), work: newWires(), dir: t.TempDir(), seats: map[string]*seat{}}
	for _, id := range ids {
		c.reserve(id)
		c.peers = append(c.peers, replica.Peer{ID: id, Addr: c.seats[id].raftAddr})
	}
	t.Cleanup(func() {
		for _, s := range c.seats {
			if s.stop != nil {
				s.stop()
			}
		}
		c.wg.Wait()
	})
	return c
}

// reserve finds addresses for a replica.
func (c *council) reserve(id string) *seat {
	c.t.Helper()
	s := &seat{id: id, out: filepath.Join(c.dir, id), raftAddr: freeAddr(c.t), workerAddr: freeAddr(c.t)}
	c.raft.names[s.raftAddr] = id
	c.seats[id] = s
	return s
}

var portsTried atomic.Int64

// freeAddr is an address that a stopped replica can have again: below the ports that the system gives to those who ask for
// any.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := 10000 + (101*os.Getpid()+int(portsTried.Add(1)))%22000 // other than in a test process beside this one
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// noLeaks checks at the end of the test, after everything has been stopped, that no goroutine is left.
func noLeaks(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for range 200 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines are left, before there were %d:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
	})
}

// leadTeller tells the council who leads.
type leadTeller struct {
	slog.Handler
	c  *council
	id string
}

func (h *leadTeller) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "this replica leads" {
		h.c.mu.Lock()
		h.c.leader = h.id
		h.c.led++
		h.c.mu.Unlock()
	}
	return h.Handler.Handle(ctx, r)
}
func (h *leadTeller) WithAttrs(as []slog.Attr) slog.Handler {
	return &leadTeller{h.Handler.WithAttrs(as), h.c, h.id}
}

// leads waits until a replica other than not leads.
func (c *council) leads(not string) string {
	c.t.Helper()
	for range 1200 {
		c.mu.Lock()
		id := c.leader
		c.mu.Unlock()
		if id != "" && id != not {
			return id
		}
		time.Sleep(25 * time.Millisecond)
	}
	c.t.Fatal("no replica leads")
	return ""
}

func (c *council) start(replicas ...string) {
	c.t.Helper()
	for _, id := range replicas {
		s := c.seats[id]
		c.raft.set(id, false)
		c.work.set(id, false)
		ctx, stop := context.WithCancel(context.Background())
		s.stop, s.result, s.steps = stop, make(chan outcome, 1), make(chan ids.Step, 1<<16)
		peers := c.peers
		if s.join {
			peers = []replica.Peer{{ID: id, Addr: s.raftAddr}}
		}
		cfg := coordinator.Config{Settings: c.settings, Nodes: 2, MinNodes: 1, CommitWindow: 1, HeartbeatTimeout: 5 * time.Second, StepTimeout: time.Minute,
			LogExamples: true, Version: "test", Logger: slog.New(&leadTeller{testLogger(c.t, id, nil).Handler(), c, id}), Progress: watch{steps: s.steps},
			Out: s.out, Listener: &tapped{listen(c.t, s.workerAddr), c.work, id},
			Replication: &replica.Replication{ID: id, Peers: peers, Join: s.join, Listener: &tapped{listen(c.t, s.raftAddr), c.raft, id},
				Dial: c.raft.dialFrom(id), ElectionTimeout: 300 * time.Millisecond}}
		if c.change != nil {
			c.change(&cfg)
		}
		result := s.result
		c.wg.Go(func() {
			res, err := coordinator.Run(ctx, cfg)
			result <- outcome{res, err}
		})
	}
}

// kill cuts all wires of a replica before it stops it, so that it has no say in its going.
func (c *council) kill(id string) {
	c.t.Helper()
	c.raft.set(id, true)
	c.work.set(id, true)
	c.seats[id].stop()
	c.ended(id)
}

// ended waits for a replica's end.
func (c *council) ended(id string) outcome {
	c.t.Helper()
	select {
	case o := <-c.seats[id].result:
		return o
	case <-time.After(2 * time.Minute):
		c.t.Fatalf("replica %s does not end", id)
	}
	return outcome{}
}

func (c *council) awaitStep(id string, want ids.Step) {
	c.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case s := <-c.seats[id].steps:
			if s >= want {
				return
			}
		case <-deadline:
			c.t.Fatalf("replica %s does not see step %d", id, want)
		}
	}
}

func (c *council) startWorkers(n int) {
	c.t.Helper()
	var addrs []string
	for _, s := range c.seats {
		addrs = append(addrs, s.workerAddr)
	}
	as := &cluster{t: c.t}
	for i := range n {
		as.startWorker(fmt.Sprint("w", i), func(w *worker.Config) { w.Coordinators = addrs })
	}
	c.t.Cleanup(as.wg.Wait)
}

// finish waits for the replicas and compares what each has with the undisturbed run.
func (c *council) finish(prompt []byte, job outputs.JobFile, ids ...string) {
	c.t.Helper()
	for _, id := range ids {
		if o := c.ended(id); o.err != nil {
			c.t.Fatalf("replica %s: %v", id, o.err)
		}
		as := &cluster{t: c.t, out: c.seats[id].out}
		as.mustEqual(prompt, job)
	}
}

// long is a job of seventy-two steps.
func long() job.Settings {
	s := settings()
	s.Epochs, s.EvalEvery = 24, 40
	return s
}

var longOnce struct {
	sync.Once
	prompt []byte
	job    outputs.JobFile
}

// longUndisturbed is what the job of long ends with when one worker does it alone.
func longUndisturbed(t *testing.T) ([]byte, outputs.JobFile) {
	t.Helper()
	longOnce.Do(func() { longOnce.prompt, longOnce.job = undisturbed(t, long()) })
	if longOnce.prompt == nil {
		t.Fatal("the undisturbed run has failed")
	}
	return longOnce.prompt, longOnce.job
}

// ask puts a question to the leader, following it.
func (c *council) ask(f func(context.Context, coordpb.ReplicasClient) (*coordpb.ReplicaList, error)) *coordpb.ReplicaList {
	c.t.Helper()
	var last error
	for range 600 {
		for _, s := range c.seats {
			conn, err := grpc.NewClient("passthrough:///"+s.workerAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				c.t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			list, err := f(ctx, coordpb.NewReplicasClient(conn))
			cancel()
			conn.Close()
			if err == nil {
				return list
			}
			last = err
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.t.Fatalf("no replica answers: %v", last)
	return nil
}

func drain(ch chan ids.Step) (got []ids.Step) {
	for {
		select {
		case s := <-ch:
			got = append(got, s)
		default:
			return got
		}
	}
}
