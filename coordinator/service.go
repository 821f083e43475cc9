package coordinator

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/coordinator/blobsync"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/replica"
)

// service is the gRPC face of a replica, for as long as the process runs. It hands workers to the
// controller while this replica leads, and sends them to the one that does while it does not.
type service struct {
	coordpb.UnimplementedCoordinatorServer
	coordpb.UnimplementedReplicasServer
	coordpb.UnimplementedJobsServer
	node         *replica.Node
	blobs        *blobsync.Sync
	serve        bool // jobs come by the queue
	logger       *slog.Logger
	readyWorkers atomic.Int32 // while this replica leads; set by the controller
	openSessions atomic.Int32

	mu       sync.Mutex
	server   *server         // of the controller; nil while this replica does not lead
	finished map[string]bool // replicas that have written the finished job's outputs
}

func newService(n *replica.Node, blobs *blobsync.Sync, serve bool, logger *slog.Logger) *service {
	return &service{node: n, blobs: blobs, serve: serve, logger: logger, finished: map[string]bool{}}
}

// lead makes workers go to s; nil ends that.
func (f *service) lead(s *server) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server = s
}

// leading is the controller's server; nil while this replica does not lead.
func (f *service) leading() *server {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.server
}

// Session implements coordpb.CoordinatorServer.
func (f *service) Session(stream coordpb.Coordinator_SessionServer) error {
	defer f.openSessions.Add(-1)
	if n := f.openSessions.Add(1); n > maxSessions {
		return status.Errorf(codes.ResourceExhausted, "%d sessions are open at this coordinator, want at most %d",
			n-1, maxSessions)
	}
	deadline := time.Now().Add(leaderWait)
	poll := time.NewTicker(leaderPoll)
	defer poll.Stop()
	for {
		if s := f.leading(); s != nil {
			return s.serve(stream)
		}
		if !f.serve { // else there may be another job
			s := f.node.Status()
			if s.Failure != nil {
				return jobFailedError(s.Failure)
			}
			if s.Finished {
				return stream.Send(finishMessage(s.Step))
			}
		}
		if id, addr := f.node.Leader(); id != "" && id != f.node.ID() && addr != "" {
			return f.redirect()
		}
		if time.Now().After(deadline) {
			return f.redirect()
		}
		select {
		case <-poll.C:
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		}
	}
}

// jobFailedError ends a worker's session because the job has failed.
func jobFailedError(f *fsm.Failure) error {
	return status.Errorf(codes.Aborted, "the job failed at step %d: %s", f.Step, f.Reason)
}

// redirect refuses a request that only the leader can answer, and says who that is.
func (f *service) redirect() error {
	id, addr := f.node.Leader()
	if id == "" || id == f.node.ID() || addr == "" {
		return status.Errorf(codes.Unavailable, "replica %s knows of no leader", f.node.ID())
	}
	return coordpb.RedirectTo(&coordpb.Redirect{Leader: id, WorkerAddr: addr},
		"replica %s does not lead; replica %s at %s does", f.node.ID(), id, addr)
}

// Add implements coordpb.ReplicasServer.
func (f *service) Add(ctx context.Context, m *coordpb.AddReplica) (*coordpb.ReplicaList, error) {
	r := m.GetReplica()
	const most = coordpb.MaxNameLength
	if r.GetId() == "" || r.GetAddr() == "" || len(r.Id) > most || len(r.Addr) > most {
		return nil, status.Errorf(codes.InvalidArgument,
			"replica %q at %q, want a name and an address of at most %d bytes", r.GetId(), r.GetAddr(), most)
	}
	return f.changeMembers(func(members []replica.Member) (change func() error, err error) {
		for _, o := range members {
			if o.ID == r.Id && o.Addr == r.Addr {
				return nil, nil
			}
			if o.ID == r.Id || o.Addr == r.Addr {
				return nil, status.Errorf(codes.AlreadyExists, "replica %s at %s is there already, "+
					"want another name and address than those, or remove it first", o.ID, o.Addr)
			}
		}
		return func() error { return f.node.AddVoter(r.Id, r.Addr) }, nil
	})
}

// Remove implements coordpb.ReplicasServer.
func (f *service) Remove(ctx context.Context, m *coordpb.RemoveReplica) (*coordpb.ReplicaList, error) {
	return f.changeMembers(func(members []replica.Member) (change func() error, err error) {
		for _, o := range members {
			if o.ID != m.GetId() {
				continue
			}
			if len(members) == 1 {
				return nil, status.Errorf(codes.FailedPrecondition,
					"replica %s is the only one, want another to be left", o.ID)
			}
			return func() error { return f.node.Remove(o.ID) }, nil
		}
		return nil, noSuchReplica(m.GetId(), members)
	})
}

// changeMembers changes the replicas; plan returns the change, nil where there is nothing to do.
func (f *service) changeMembers(plan func([]replica.Member) (func() error, error)) (*coordpb.ReplicaList, error) {
	if f.node.Alone() {
		return nil, status.Error(codes.FailedPrecondition,
			"this coordinator runs alone; replicas take --id and --peers from the start")
	}
	if !f.node.IsLeader() {
		return nil, f.redirect()
	}
	members, err := f.node.Members()
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	change, err := plan(members)
	if err != nil {
		return nil, err
	}
	if change != nil {
		if err := change(); errors.Is(err, replica.ErrDeposed) {
			return nil, f.redirect()
		} else if err != nil {
			return nil, status.Errorf(codes.Internal, "change the replicas: %v", err)
		}
		if members, err = f.node.Members(); err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
	}
	list := &coordpb.ReplicaList{Leader: f.node.ID()}
	for _, o := range members {
		list.Replicas = append(list.Replicas, &coordpb.Replica{Id: o.ID, Addr: o.Addr})
	}
	return list, nil
}

// isMember refuses an id that no replica has.
func (f *service) isMember(id string) error {
	members, err := f.node.Members()
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	if !slices.ContainsFunc(members, func(o replica.Member) bool { return o.ID == id }) {
		return noSuchReplica(id, members)
	}
	return nil
}

func noSuchReplica(id string, members []replica.Member) error {
	var names []string
	for _, o := range members {
		names = append(names, o.ID)
	}
	return status.Errorf(codes.NotFound, "no replica is called %q, want one of %s", id, strings.Join(names, ", "))
}

// Finished implements coordpb.ReplicasServer.
func (f *service) Finished(ctx context.Context, m *coordpb.ReplicaFinished) (*coordpb.ReplicaFinishedAck, error) {
	if !f.node.IsLeader() {
		return nil, f.redirect()
	}
	if err := f.isMember(m.GetId()); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.finished[m.Id] = true
	return &coordpb.ReplicaFinishedAck{}, nil
}

// unfinishedReplicas are the other replicas that have not reported that they have finished.
func (f *service) unfinishedReplicas() ([]string, error) {
	members, err := f.node.Members()
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for _, o := range members {
		if o.ID != f.node.ID() && !f.finished[o.ID] {
			list = append(list, o.ID)
		}
	}
	return list, nil
}

// Holds implements coordpb.ReplicasServer.
func (f *service) Holds(ctx context.Context, m *coordpb.ReplicaHolds) (*coordpb.ReplicaHoldsAck, error) {
	if !f.node.IsLeader() {
		return nil, f.redirect()
	}
	if err := f.isMember(m.GetId()); err != nil {
		return nil, err
	}
	if err := f.blobs.RecordReport(m); err != nil {
		return nil, err
	}
	if s := f.leading(); s != nil {
		if err := s.post(ctx, event{holds: true}); err != nil {
			return nil, err
		}
	}
	return &coordpb.ReplicaHoldsAck{}, nil
}
