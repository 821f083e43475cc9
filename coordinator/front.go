package coordinator

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
)

const (
	// holdTime is how long a worker that asks a replica without a leader is kept waiting for one: it learns of the new
	// leader as soon as there is one.
	holdTime = 2 * time.Second
	// holdPoll is how often a held worker's question is looked at again.
	holdPoll = 20 * time.Millisecond
	// membershipTimeout bounds a change of the replicas.
	membershipTimeout = 10 * time.Second
)

// front is the gRPC face of a replica, for as long as the process runs. It hands workers to the controller while this
// replica leads, and sends them to the one that does while it does not.
type front struct {
	coordpb.UnimplementedCoordinatorServer
	coordpb.UnimplementedReplicasServer
	coordpb.UnimplementedJobsServer
	coordpb.UnimplementedBlobsServer
	node     *node
	states   *states
	serve    bool // jobs come by the queue
	logger   *slog.Logger
	workers  atomic.Int32 // that are ready, while this replica leads
	sessions atomic.Int32 // open ones

	mu       sync.Mutex
	server   *server         // of the controller; nil while this replica does not lead
	finished map[string]bool // replicas that have written the finished job's outputs
}

func newFront(n *node, k *states, serve bool, logger *slog.Logger) *front {
	return &front{node: n, states: k, serve: serve, logger: logger, finished: map[string]bool{}}
}

// lead makes workers go to s; nil ends that.
func (f *front) lead(s *server) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server = s
}

// Session implements coordpb.CoordinatorServer.
func (f *front) Session(stream coordpb.Coordinator_SessionServer) error {
	defer f.sessions.Add(-1)
	if n := f.sessions.Add(1); n > maxSessions {
		return status.Errorf(codes.ResourceExhausted, "%d sessions are open at this coordinator, want at most %d", n-1, maxSessions)
	}
	deadline := time.Now().Add(holdTime)
	poll := time.NewTicker(holdPoll)
	defer poll.Stop()
	for {
		f.mu.Lock()
		s := f.server
		f.mu.Unlock()
		if s != nil {
			return s.serve(stream)
		}
		var step ids.Step
		var over bool
		var failure *fsm.Failure
		f.node.view(func(m *fsm.Machine) { step, over, failure = m.Step(), m.Finished(), m.Failure() })
		if f.serve {
			over, failure = false, nil // there may be another job
		}
		if failure != nil {
			return refuseFailed(failure)
		}
		if over {
			return stream.Send(&coordpb.CoordinatorMessage{Body: &coordpb.CoordinatorMessage_Finish{Finish: &coordpb.Finish{Steps: int64(step)}}})
		}
		if id, addr := f.node.leader(); id != "" && id != string(f.node.id) && addr != "" {
			return f.elsewhere()
		}
		if time.Now().After(deadline) {
			return f.elsewhere()
		}
		select {
		case <-poll.C:
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		}
	}
}

// refuseFailed ends a worker's session because the job has failed.
func refuseFailed(f *fsm.Failure) error {
	return status.Errorf(codes.Aborted, "the job failed at step %d: %s", f.Step, f.Reason)
}

// elsewhere refuses a request that only the leader can answer, and says who that is.
func (f *front) elsewhere() error {
	id, addr := f.node.leader()
	if id == "" || id == string(f.node.id) || addr == "" {
		return status.Errorf(codes.Unavailable, "replica %s knows of no leader", f.node.id)
	}
	return coordpb.RedirectTo(&coordpb.Redirect{Leader: id, WorkerAddr: addr}, "replica %s does not lead; replica %s at %s does", f.node.id, id, addr)
}

// Add implements coordpb.ReplicasServer.
func (f *front) Add(ctx context.Context, m *coordpb.AddReplica) (*coordpb.ReplicaList, error) {
	r := m.GetReplica()
	if r.GetId() == "" || r.GetAddr() == "" || len(r.Id) > maxNameLength || len(r.Addr) > maxNameLength {
		return nil, status.Errorf(codes.InvalidArgument, "replica %q at %q, want a name and an address of at most %d bytes", r.GetId(), r.GetAddr(), maxNameLength)
	}
	return f.change(func(servers []raft.Server) (raft.Future, error) {
		for _, s := range servers {
			if string(s.ID) == r.Id && string(s.Address) == r.Addr {
				return nil, nil
			}
			if string(s.ID) == r.Id || string(s.Address) == r.Addr {
				return nil, status.Errorf(codes.AlreadyExists, "replica %s at %s is there already, want another name and address than those, or remove it first", s.ID, s.Address)
			}
		}
		return f.node.raft.AddVoter(raft.ServerID(r.Id), raft.ServerAddress(r.Addr), 0, membershipTimeout), nil
	})
}

// Remove implements coordpb.ReplicasServer.
func (f *front) Remove(ctx context.Context, m *coordpb.RemoveReplica) (*coordpb.ReplicaList, error) {
	return f.change(func(servers []raft.Server) (raft.Future, error) {
		for _, s := range servers {
			if string(s.ID) != m.GetId() {
				continue
			}
			if len(servers) == 1 {
				return nil, status.Errorf(codes.FailedPrecondition, "replica %s is the only one, want another to be left", s.ID)
			}
			return f.node.raft.RemoveServer(s.ID, 0, membershipTimeout), nil
		}
		return nil, status.Errorf(codes.NotFound, "no replica is called %q, want one of %s", m.GetId(), names(servers))
	})
}

// change changes the replicas; do returns nil where there is nothing to do.
func (f *front) change(do func([]raft.Server) (raft.Future, error)) (*coordpb.ReplicaList, error) {
	if f.node.alone() {
		return nil, status.Error(codes.FailedPrecondition, "this coordinator runs alone; replicas take --id and --peers from the start")
	}
	if f.node.raft.State() != raft.Leader {
		return nil, f.elsewhere()
	}
	servers, err := f.node.servers()
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	future, err := do(servers)
	if err != nil {
		return nil, err
	}
	if future != nil {
		if err := future.Error(); deposed(err) {
			return nil, f.elsewhere()
		} else if err != nil {
			return nil, status.Errorf(codes.Internal, "change the replicas: %v", err)
		}
		if servers, err = f.node.servers(); err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
	}
	list := &coordpb.ReplicaList{Leader: string(f.node.id)}
	for _, s := range servers {
		list.Replicas = append(list.Replicas, &coordpb.Replica{Id: string(s.ID), Addr: string(s.Address)})
	}
	return list, nil
}

func names(servers []raft.Server) string {
	text := ""
	for i, s := range servers {
		if i > 0 {
			text += ", "
		}
		text += string(s.ID)
	}
	return text
}

// Finished implements coordpb.ReplicasServer.
func (f *front) Finished(ctx context.Context, m *coordpb.ReplicaFinished) (*coordpb.ReplicaFinishedAck, error) {
	if f.node.raft.State() != raft.Leader {
		return nil, f.elsewhere()
	}
	servers, err := f.node.servers()
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	for _, s := range servers {
		if string(s.ID) == m.GetId() {
			f.mu.Lock()
			f.finished[m.Id] = true
			f.mu.Unlock()
			return &coordpb.ReplicaFinishedAck{}, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "no replica is called %q, want one of %s", m.GetId(), names(servers))
}

// waitsFor are the replicas that have not said that they have finished.
func (f *front) waitsFor() ([]string, error) {
	servers, err := f.node.servers()
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for _, s := range servers {
		if s.ID != f.node.id && !f.finished[string(s.ID)] {
			list = append(list, string(s.ID))
		}
	}
	return list, nil
}
