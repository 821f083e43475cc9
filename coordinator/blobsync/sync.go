package blobsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	"github.com/dptune/dpt/model/optim"
)

const (
	// reportInterval is how often a replica reports again to the leader what it holds while an
	// offer stands: a replica that has just come to lead has not heard.
	reportInterval = time.Second
	// reportTimeout bounds one such report.
	reportTimeout = time.Second
	// firstRetry and maxRetry bound the wait before a blob that could not be fetched is asked for
	// again.
	firstRetry = 100 * time.Millisecond
	maxRetry   = 2 * time.Second
	// missingGrace is how long a blob may be missing before that is logged, and missingInterval how
	// often it is.
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
	// Introduced is called when the peer of a stream has said what it wants and is no stranger.
	Introduced func(ctx context.Context)
	// Silence is how long a transfer may bring nothing before it is given up.
	Silence time.Duration
	Logger  *slog.Logger
}

// Sync keeps this replica's blobs. One goroutine, Run, fetches every blob that the state machine
// refers to, reports to the leader what is here, and removes what nothing refers to any more. The
// other methods may be called from any goroutine.
type Sync struct {
	coordpb.UnimplementedBlobsServer
	Options
	changes <-chan struct{} // of the state machine

	mu      sync.Mutex
	uploads map[Upload]*arrival  // those that plans have asked for
	moved   map[string]time.Time // by worker, when a piece of a blob last went to it or came from it
	holders map[string]Holder    // by replica, what it has reported

	// The fields below belong to Run's goroutine.
	reported     string        // the last report that the leader has acknowledged, and who that is
	reportedAt   time.Time     // when it was
	retry        time.Duration // the last wait for something that is missing
	missingSince time.Time     // zero if nothing is missing
	loggedAt     time.Time     // when that was last logged
}

// Upload is a trainer state that one worker stores for all.
type Upload struct {
	Worker     string
	Generation ids.Generation
	Step       ids.Step
}

// arrival is what has come of an upload.
type arrival struct {
	size int64    // as the plan expects
	blob ids.Blob // zero until its head has come
	busy bool     // its pieces arrive now
}

// Holder is what a replica has reported that it holds.
type Holder struct {
	Addr    string
	Digests []ids.Digest
	// Generation and Step are those of the offer whose blob it holds; 0 if it holds none.
	Generation ids.Generation
	Step       ids.Step
}

// New makes a Sync; Run starts it.
func New(o Options) *Sync {
	return &Sync{
		Options: o,
		changes: o.Node.Changes(),
		uploads: map[Upload]*arrival{},
		moved:   map[string]time.Time{},
		holders: map[string]Holder{},
	}
}

// Run returns when ctx ends. A disk that fails ends the replica.
func (s *Sync) Run(ctx context.Context) error {
	for {
		wait := s.round(ctx)
		timer := time.NewTimer(wait)
		if wait == 0 {
			timer.Stop()
		}
		select {
		case <-s.changes:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			s.sweepIfSafe() // what the last entries have made old
			return nil
		}
		timer.Stop()
	}
}

// round does what can be done now and returns when to look again; 0 is when something changes.
func (s *Sync) round(ctx context.Context) (wait time.Duration) {
	var wanted []ids.Blob
	var offer *fsm.Offer
	s.Node.View(func(m *fsm.Machine) { wanted, offer = m.Blobs(), m.Offered() })
	if len(wanted) == 0 && !s.Blobs.Any() {
		return 0
	}

	incomplete := false
	for _, b := range wanted {
		if s.Blobs.Has(b.Digest) {
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

	switch {
	case incomplete:
		s.retry = min(max(2*s.retry, firstRetry), maxRetry)
		return s.retry
	case offer != nil && !s.Node.Alone():
		s.retry = 0
		return reportInterval
	}
	s.retry = 0
	return 0
}

// logMissing logs that a blob could not be fetched, if that lasts: a replica that catches up meets
// blobs of long ago.
func (s *Sync) logMissing(b ids.Blob, why error) {
	now := time.Now()
	if s.missingSince.IsZero() {
		s.missingSince = now
	}
	missingFor := now.Sub(s.missingSince)
	if missingFor < missingGrace || now.Sub(s.loggedAt) < missingInterval {
		s.Logger.Debug("trainer state is not here yet", "digest", b.Digest.Short(), "bytes", b.Size, "reason", why)
		return
	}
	s.loggedAt = now
	s.Logger.Warn("trainer state is not here; trying again until it is",
		"digest", b.Digest.Short(), "bytes", b.Size, "missing_for", missingFor.Round(time.Second), "reason", why)
}

// sweepIfSafe sweeps unless this replica still replays its log: its machine then refers to blobs of
// long ago.
func (s *Sync) sweepIfSafe() {
	if !s.Node.Replayed() || s.Node.Err() != nil {
		return
	}
	if err := s.sweep(); err != nil {
		s.Logger.Warn("old trainer states stay on disk", "reason", err)
	}
}

// sweep removes the blobs that nothing refers to. Nothing refers to what a worker stores before it
// is offered or committed; it stays as long as its generation, and until its step is committed.
func (s *Sync) sweep() error {
	var wanted []ids.Blob
	var generation ids.Generation
	var step ids.Step
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Node.View(func(m *fsm.Machine) {
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
	return s.Blobs.Keep(func(d ids.Digest) bool {
		return slices.ContainsFunc(wanted, func(b ids.Blob) bool { return b.Digest == d })
	})
}

// get makes or fetches a blob, by whatever way there is.
func (s *Sync) get(ctx context.Context, b ids.Blob) error {
	j := s.LoadedJob()
	if j != nil && j.InitialBlob == b {
		return s.write(b, j.Initial.Write)
	}
	if s.Node.Alone() {
		err := fmt.Errorf("trainer state of %d bytes with digest %s is missing or damaged in %s, "+
			"and there is no other replica to fetch it from", b.Size, b.Digest, s.Dir)
		if s.Node.Replayed() && s.isLost(b, j) {
			s.Node.Fail(err)
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
		failed = errors.New("no replica is known that has it")
	}
	return failed
}

// isLost reports whether the log's job needs a blob that is not here, and that job, which this
// replica has loaded, does not start from it. A queue's replica may not have loaded it yet.
func (s *Sync) isLost(b ids.Blob, loaded *job.Job) (is bool) {
	s.Node.View(func(m *fsm.Machine) {
		is = m.Blob() == b || m.Best() != nil && m.Best().Blob == b
		is = is && (!s.Serve || loaded != nil && loaded.ID == m.JobID())
	})
	return is
}

// sources are the addresses to fetch a blob from: replicas that have reported it, then the leader,
// then those that have led.
func (s *Sync) sources(d ids.Digest) (list []string) {
	add := func(addr string) {
		if addr != "" && addr != s.WorkerAddr && !slices.Contains(list, addr) {
			list = append(list, addr)
		}
	}
	s.mu.Lock()
	for _, h := range s.holders {
		if slices.Contains(h.Digests, d) {
			add(h.Addr)
		}
	}
	s.mu.Unlock()
	slices.Sort(list)
	_, leader := s.Node.Leader()
	add(leader)
	s.Node.View(func(m *fsm.Machine) {
		for _, addr := range m.WorkerAddrs() {
			add(addr)
		}
	})
	return list
}

// isWanted reports whether the state machine refers to the blob.
func (s *Sync) isWanted(d ids.Digest) (is bool) {
	s.Node.View(func(m *fsm.Machine) {
		is = slices.ContainsFunc(m.Blobs(), func(b ids.Blob) bool { return b.Digest == d })
	})
	return is
}

// write writes a blob that this process makes itself.
func (s *Sync) write(b ids.Blob, fill func(io.Writer) error) error {
	w, err := s.Blobs.Create(b)
	if err == nil {
		if err = fill(w); err == nil {
			err = w.Commit()
		} else {
			err = errors.Join(err, w.Abort())
		}
	}
	if err != nil {
		s.Node.Fail(err)
	}
	return err
}

// Has reports whether a blob is here. The zero Blob, which stands for a state in the log, always
// is.
func (s *Sync) Has(b ids.Blob) bool { return b.Size == 0 || s.Blobs.Has(b.Digest) }

// read gives a blob to f, which reads it to its end. It discards a damaged blob, so that it is
// fetched again.
func (s *Sync) read(b ids.Blob, f func(io.Reader) error) error {
	r, err := s.Blobs.Open(b.Digest)
	if err != nil {
		return err
	}
	err = errors.Join(f(r), r.Close())
	if errors.Is(err, blobs.ErrDamaged) {
		err = errors.Join(err, s.Blobs.Discard(b.Digest))
		s.Node.Wake()
	}
	return err
}

// State returns the encoding of a trainer state: inline, or where b names one, the blob.
func (s *Sync) State(inline []byte, b ids.Blob) (state []byte, err error) {
	if b.Size == 0 {
		return inline, nil
	}
	var buf bytes.Buffer
	err = s.read(b, func(r io.Reader) error { _, err := buf.ReadFrom(r); return err })
	return buf.Bytes(), err
}

// Params returns the n parameters of a trainer state: inline, or where b names one, the blob.
func (s *Sync) Params(inline []byte, b ids.Blob, n int) (params []float32, err error) {
	if b.Size == 0 {
		return optim.ReadParams(bytes.NewReader(inline), n)
	}
	err = s.read(b, func(r io.Reader) error {
		if params, err = optim.ReadParams(r, n); err != nil {
			return err
		}
		more, err := io.Copy(io.Discard, r) // the digest is checked at the end
		if err == nil && more > 0 {
			err = fmt.Errorf("trainer state is %d bytes longer than that of %d parameters", more, n)
		}
		return err
	})
	return params, err
}
