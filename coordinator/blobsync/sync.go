package blobsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/dptune/dpt/coordinator/blobs"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/replica"
)

const (
	// reportInterval is the time between a replica's reports of what it holds while an offer
	// stands. They repeat because a new leader does not know the earlier ones.
	reportInterval = time.Second
	// reportTimeout bounds one report.
	reportTimeout = time.Second
	// firstRetry and maxRetry bound the wait before another attempt to fetch a blob.
	firstRetry = 100 * time.Millisecond
	maxRetry   = 2 * time.Second
	// missingGrace is how long a blob may be missing before that is logged, and missingInterval the
	// time between two such log lines.
	missingGrace    = 2 * time.Second
	missingInterval = 30 * time.Second
)

// Options are what a Sync works with.
type Options struct {
	Node  *replica.Node
	Blobs *blobs.Store
	// Dir is the directory of Blobs, for errors.
	Dir string
	// WorkerAddr is where workers and other replicas reach this one's services.
	WorkerAddr string
	// Serve: jobs come by the queue, and this replica may not have loaded the log's job yet.
	Serve bool
	// LoadedJob returns the job that this replica has loaded last; nil if none.
	LoadedJob func() *job.Job
	// Dial connects to the services of the replica at a worker-facing address.
	Dial func(addr string) (*grpc.ClientConn, error)
	// Introduced is called with a stream's context once its peer has sent a valid request, and so
	// is no stranger.
	Introduced func(ctx context.Context)
	// Silence is how long a transfer may bring nothing before it is abandoned.
	Silence time.Duration
	Logger  *slog.Logger
}

// Sync keeps this replica's blobs. One goroutine, Run, fetches every blob that the state machine
// refers to, reports to the leader what is here, and removes what nothing refers to any more. The
// other methods may be called from any goroutine.
type Sync struct {
	coordpb.UnimplementedBlobsServer
	opts    Options
	changes <-chan struct{} // of the state machine

	mu        sync.Mutex           // guards the fields below
	uploads   map[Upload]*arrival  // those that plans have asked for
	transfers map[string]time.Time // by worker, when a piece of a blob last went to it or came from it
	holders   map[string]holder    // by replica, its last report

	// The fields below belong to Run's goroutine.
	reported     string        // the last report that a leader has acknowledged, with its term
	reportedAt   time.Time     // when it was
	retry        time.Duration // the last wait for something that is missing
	missingSince time.Time     // zero if nothing is missing
	loggedAt     time.Time     // when that was last logged
}

// Upload is a trainer state that one worker stores for all: the one after Step, as Generation has
// computed it.
type Upload struct {
	Worker     string
	Generation ids.Generation
	Step       ids.Step
}

// arrival is the progress of an upload.
type arrival struct {
	size int64    // as the plan expects
	blob ids.Blob // zero until the head has come
	busy bool     // a stream brings its pieces
}

// holder is a replica's report of the blobs that it holds.
type holder struct {
	addr    string // of its services
	digests []ids.Digest
	// generation and step are those of the offer whose blob it holds; 0 if it holds none.
	generation ids.Generation
	step       ids.Step
}

// New makes a Sync; Run starts it.
func New(o Options) *Sync {
	return &Sync{
		opts:      o,
		changes:   o.Node.Changes(),
		uploads:   map[Upload]*arrival{},
		transfers: map[string]time.Time{},
		holders:   map[string]holder{},
	}
}

// Run returns when ctx ends. A disk that fails ends the replica.
func (s *Sync) Run(ctx context.Context) error {
	for {
		var again <-chan time.Time
		if wait := s.round(ctx); wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-s.changes:
		case <-again:
		case <-ctx.Done():
			s.sweepIfSafe() // the last entries may have dropped blobs
			return nil
		}
	}
}

// round fetches what is missing, reports what is here and sweeps, as far as that can be done now.
// It returns the wait until the next round; 0 is until something changes.
func (s *Sync) round(ctx context.Context) (wait time.Duration) {
	var wanted []ids.Blob
	var offer *fsm.Offer
	s.opts.Node.View(func(m *fsm.Machine) { wanted, offer = m.Blobs(), m.Offered() })
	if len(wanted) == 0 && !s.opts.Blobs.Any() {
		return 0
	}

	incomplete := false // something is missing here, or the leader does not know what is here
	for _, b := range wanted {
		if s.opts.Blobs.Has(b.Digest) {
			continue
		}
		if err := s.get(ctx, b); err != nil {
			if ctx.Err() != nil {
				return 0
			}
			s.logMissing(b, err)
			incomplete = true
		}
	}
	if !incomplete {
		s.missingSince = time.Time{}
	}
	if !s.report(ctx, wanted, offer) {
		incomplete = true
	}
	s.sweepIfSafe()

	if incomplete {
		s.retry = min(max(2*s.retry, firstRetry), maxRetry)
		return s.retry
	}
	s.retry = 0
	if offer != nil && !s.opts.Node.Alone() {
		return reportInterval
	}
	return 0
}

// logMissing logs that a blob could not be fetched. It warns only if that lasts: the log entries
// that a replica catches up with refer to blobs that are gone everywhere.
func (s *Sync) logMissing(b ids.Blob, why error) {
	now := time.Now()
	if s.missingSince.IsZero() {
		s.missingSince = now
	}
	missingFor := now.Sub(s.missingSince)
	if missingFor < missingGrace || now.Sub(s.loggedAt) < missingInterval {
		s.opts.Logger.Debug("trainer state is not here yet", "digest", b.Digest.Short(), "bytes", b.Size, "reason", why)
		return
	}
	s.loggedAt = now
	s.opts.Logger.Warn("trainer state is not here; trying again until it is",
		"digest", b.Digest.Short(), "bytes", b.Size, "missing_for", missingFor.Round(time.Second), "reason", why)
}

// sweepIfSafe sweeps unless this replica still replays its log: its machine then refers to old
// blobs instead of those that are here.
func (s *Sync) sweepIfSafe() {
	if !s.opts.Node.Replayed() || s.opts.Node.Err() != nil {
		return
	}
	if err := s.sweep(); err != nil {
		s.opts.Logger.Warn("old trainer states stay on disk", "reason", err)
	}
}

// sweep removes the blobs that nothing refers to. The state machine does not refer to what a worker
// stores until it is offered or committed; such a blob stays until its generation has ended or its
// step is committed.
func (s *Sync) sweep() error {
	var wanted []ids.Blob
	var generation ids.Generation
	var step ids.Step
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.Node.View(func(m *fsm.Machine) {
		wanted, step = m.Blobs(), m.Step()
		generation, _ = m.Generation()
	})
	for u, a := range s.uploads {
		if u.Generation < generation || u.Step <= step {
			delete(s.uploads, u)
		} else {
			wanted = append(wanted, a.blob)
		}
	}
	return s.opts.Blobs.Keep(func(d ids.Digest) bool {
		return slices.ContainsFunc(wanted, func(b ids.Blob) bool { return b.Digest == d })
	})
}

// get brings a blob here: it writes the loaded job's initial state, and fetches any other.
func (s *Sync) get(ctx context.Context, b ids.Blob) error {
	j := s.opts.LoadedJob()
	if j != nil && j.InitialBlob == b {
		return s.write(b, j.Initial.Write)
	}
	if s.opts.Node.Alone() {
		err := fmt.Errorf("trainer state of %d bytes with digest %s is missing or damaged in %s, "+
			"and there is no other replica to fetch it from", b.Size, b.Digest, s.opts.Dir)
		if s.opts.Node.Replayed() && s.isLost(b, j) {
			s.opts.Node.Fail(err)
		}
		return err
	}

	var failed error
	for _, addr := range s.sources(b.Digest) {
		err := s.fetch(ctx, addr, b)
		if err == nil || ctx.Err() != nil || errors.Is(err, errUnwanted) {
			return nil
		}
		failed = errors.Join(failed, err)
	}
	if failed == nil {
		failed = errors.New("no replica is known to have it")
	}
	return failed
}

// isLost reports whether the log's job needs a blob that is not here, and cannot be the job's
// initial state. A replica of a queue may not have loaded the job yet, and cannot tell before that.
func (s *Sync) isLost(b ids.Blob, loaded *job.Job) (lost bool) {
	s.opts.Node.View(func(m *fsm.Machine) {
		needed := m.Blob() == b || m.Best() != nil && m.Best().Blob == b
		known := !s.opts.Serve || loaded != nil && loaded.ID == m.JobID()
		lost = needed && known
	})
	return lost
}

// sources returns the addresses to try for a blob: replicas that have reported it, then the leader,
// then replicas that have led.
func (s *Sync) sources(d ids.Digest) (list []string) {
	add := func(addr string) {
		if addr != "" && addr != s.opts.WorkerAddr && !slices.Contains(list, addr) {
			list = append(list, addr)
		}
	}
	s.mu.Lock()
	for _, h := range s.holders {
		if slices.Contains(h.digests, d) {
			add(h.addr)
		}
	}
	s.mu.Unlock()
	slices.Sort(list)
	_, leader := s.opts.Node.Leader()
	add(leader)
	s.opts.Node.View(func(m *fsm.Machine) {
		for _, addr := range m.WorkerAddrs() {
			add(addr)
		}
	})
	return list
}

// isWanted reports whether the state machine refers to the blob.
func (s *Sync) isWanted(d ids.Digest) (wanted bool) {
	s.opts.Node.View(func(m *fsm.Machine) {
		wanted = slices.ContainsFunc(m.Blobs(), func(b ids.Blob) bool { return b.Digest == d })
	})
	return wanted
}
