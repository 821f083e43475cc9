package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/outputs"
	"github.com/dptune/dpt/coordinator/replica"
	"github.com/dptune/dpt/worker"
)

// Whole clusters in one process: replicas of the coordinator that talk raft over loopback, and
// workers. The tests cut connections, stop replicas and start them again.

// replicaSet is a replicated coordinator and its workers.
type replicaSet struct {
	t             *testing.T
	settings      job.Settings
	change        func(*coordinator.Config) // changes each replica's configuration, if not nil
	raftNetwork   *faultyNetwork            // between replicas
	workerNetwork *faultyNetwork            // from workers
	dir           string                    // holds the replicas' output directories
	peers         []replica.Peer
	members       map[string]*member // by id
	wg            sync.WaitGroup     // counts the running replicas

	mu     sync.Mutex
	leader string // the id of the last replica that began to lead; guarded by mu
}

// member is what stays of a replica when its process ends, and how to reach the process.
type member struct {
	id, out    string
	workerAddr string
	raftAddr   string
	join       bool               // it joins a coordinator that runs already
	stop       context.CancelFunc // stops the process
	result     chan outcome       // of the process
	steps      chan ids.Step      // committed steps as the process learns of them
}

// newReplicaSet reserves addresses for replicas. It starts none.
func newReplicaSet(t *testing.T, s job.Settings, ids ...string) *replicaSet {
	t.Helper()
	noLeaks(t)
	c := &replicaSet{
		t:             t,
		settings:      s,
		raftNetwork:   newFaultyNetwork(),
		workerNetwork: newFaultyNetwork(),
		dir:           t.TempDir(),
		members:       map[string]*member{},
	}
	for _, id := range ids {
		c.reserve(id)
		c.peers = append(c.peers, replica.Peer{ID: id, Addr: c.members[id].raftAddr})
	}
	t.Cleanup(func() {
		for _, s := range c.members {
			if s.stop != nil {
				s.stop()
			}
		}
		c.wg.Wait()
	})
	return c
}

// reserve finds addresses for a replica.
func (c *replicaSet) reserve(id string) *member {
	c.t.Helper()
	s := &member{id: id, out: filepath.Join(c.dir, id), raftAddr: freeAddr(c.t), workerAddr: freeAddr(c.t)}
	c.raftNetwork.names[s.raftAddr] = id
	c.members[id] = s
	return s
}

var portsTried atomic.Int64

// freeAddr returns an address that a stopped replica can listen on again: its port is below those
// that the system assigns to listeners on port 0.
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

// noLeaks checks at the end of the test, after all has stopped, that no goroutine is left.
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
		t.Errorf("%d goroutines are left, want %d as before:\n%s",
			runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
	})
}

// leaderWatcher tells the replica set when a replica begins to lead, from its log.
type leaderWatcher struct {
	slog.Handler
	set *replicaSet
	id  string // of the replica that logs
}

func (h *leaderWatcher) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "this replica leads" {
		h.set.mu.Lock()
		h.set.leader = h.id
		h.set.mu.Unlock()
	}
	return h.Handler.Handle(ctx, r)
}

func (h *leaderWatcher) WithAttrs(as []slog.Attr) slog.Handler {
	return &leaderWatcher{h.Handler.WithAttrs(as), h.set, h.id}
}

// leads waits until a replica leads that is not the given one, and returns its id.
func (c *replicaSet) leads(not string) string {
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

// start starts the processes of replicas, with connections that are not cut.
func (c *replicaSet) start(replicas ...string) {
	c.t.Helper()
	for _, id := range replicas {
		s := c.members[id]
		c.raftNetwork.setCut(id, false)
		c.workerNetwork.setCut(id, false)
		ctx, stop := context.WithCancel(context.Background())
		s.stop, s.result, s.steps = stop, make(chan outcome, 1), make(chan ids.Step, 1<<16)
		peers := c.peers
		if s.join {
			peers = []replica.Peer{{ID: id, Addr: s.raftAddr}}
		}
		cfg := coordinator.Config{
			Settings:         c.settings,
			Nodes:            2,
			MinNodes:         1,
			Listener:         &trackedListener{listen(c.t, s.workerAddr), c.workerNetwork, id},
			Out:              s.out,
			CommitWindow:     1,
			HeartbeatTimeout: 5 * time.Second,
			StepTimeout:      time.Minute,
			LogExamples:      true,
			Version:          "test",
			Logger:           slog.New(&leaderWatcher{testLogger(c.t, id, nil).Handler(), c, id}),
			Progress:         stepWatcher{steps: s.steps},
			Replication: &replica.Replication{
				ID:              id,
				Peers:           peers,
				Join:            s.join,
				Listener:        &trackedListener{listen(c.t, s.raftAddr), c.raftNetwork, id},
				Dial:            c.raftNetwork.dialFrom(id),
				ElectionTimeout: 300 * time.Millisecond,
			},
		}
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

// kill cuts a replica off before it stops it, so that it cannot hand over its leadership.
func (c *replicaSet) kill(id string) {
	c.t.Helper()
	c.raftNetwork.setCut(id, true)
	c.workerNetwork.setCut(id, true)
	c.members[id].stop()
	c.ended(id)
}

// ended waits for a replica's end.
func (c *replicaSet) ended(id string) outcome {
	c.t.Helper()
	select {
	case o := <-c.members[id].result:
		return o
	case <-time.After(2 * time.Minute):
		c.t.Fatalf("replica %s does not end", id)
	}
	return outcome{}
}

// awaitStep waits until a replica learns of a step, or of a later one.
func (c *replicaSet) awaitStep(id string, want ids.Step) {
	c.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case s := <-c.members[id].steps:
			if s >= want {
				return
			}
		case <-deadline:
			c.t.Fatalf("replica %s does not see step %d", id, want)
		}
	}
}

// startWorkers runs workers that know all replicas, and returns where their errors go. change, if
// not nil, changes their configuration.
func (c *replicaSet) startWorkers(n int, change func(*worker.Config)) (ended []<-chan error) {
	c.t.Helper()
	var addrs []string
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		addrs = append(addrs, c.members[id].workerAddr)
	}
	as := &cluster{t: c.t}
	c.t.Cleanup(as.wg.Wait)
	return as.startWorkers(n, func(w *worker.Config) {
		w.Coordinators = addrs
		if change != nil {
			change(w)
		}
	})
}

// finish waits for the end of the replicas and compares the outputs of each with the undisturbed
// run's.
func (c *replicaSet) finish(prompt []byte, job outputs.JobFile, ids ...string) {
	c.t.Helper()
	for _, id := range ids {
		if o := c.ended(id); o.err != nil {
			c.t.Fatalf("replica %s: %v", id, o.err)
		}
		as := &cluster{t: c.t, out: c.members[id].out}
		as.mustEqual(prompt, job)
	}
}

// longJob returns a job of seventy-two steps.
func longJob() job.Settings {
	s := settings()
	s.Epochs, s.EvalEvery = 24, 40
	return s
}

var longOnce struct {
	sync.Once
	prompt []byte
	job    outputs.JobFile
}

// longUndisturbed is undisturbed for longJob, which runs once.
func longUndisturbed(t *testing.T) ([]byte, outputs.JobFile) {
	t.Helper()
	longOnce.Do(func() { longOnce.prompt, longOnce.job = undisturbed(t, longJob()) })
	if longOnce.prompt == nil {
		t.Fatal("the undisturbed run has failed")
	}
	return longOnce.prompt, longOnce.job
}

// askLeader calls all replicas in turn until one, the leader, answers.
func (c *replicaSet) askLeader(
	f func(context.Context, coordpb.ReplicasClient) (*coordpb.ReplicaList, error),
) *coordpb.ReplicaList {
	c.t.Helper()
	var last error
	for range 600 {
		for _, id := range slices.Sorted(maps.Keys(c.members)) {
			conn := dial(c.t, c.members[id].workerAddr)
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

// drain returns what a channel holds now.
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
