package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/dptune/dpt/coordinator/blobs"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/model/optim"
)

const (
	// holdsInterval is how often a replica tells the leader again what it has while an offer holds: a leader that has just come to lead has not heard.
	holdsInterval = time.Second
	// firstBlobRetry and maxBlobRetry bound the wait before a blob that could not be had is asked for again.
	firstBlobRetry = 100 * time.Millisecond
	maxBlobRetry   = 2 * time.Second
	// lackPatience is how long a blob may be missing before that is mentioned, and lackInterval how often it is.
	lackPatience = 2 * time.Second
	lackInterval = 30 * time.Second
	// arrivalPoll is how often somebody who waits for a blob looks.
	arrivalPoll = 50 * time.Millisecond
)

// states keeps this replica's blobs: the trainer states that are too large for the log. One goroutine, run, has every blob that the machine names
// brought here and tells the leader, and removes those that nothing names any more. The other methods may be called from any goroutine.
type states struct {
	cfg    *Config
	node   *node
	store  *blobs.Store
	loaded func() *job.Job // the job that this replica has loaded last; nil if none

	mu      sync.Mutex
	uploads map[upload]*arrival  // those that plans have asked for
	moved   map[string]time.Time // by worker, when a piece of a blob last went to it or came from it
	holders map[string]holder    // by replica, what it has said

	told   string        // what the leader knows of this replica, and who that is
	said   time.Time     // when it was told
	retry  time.Duration // the last wait for something that is missing
	lacks  time.Time     // since when something is missing; zero if nothing is
	warned time.Time     // when that was last mentioned
}

// upload is a trainer state that one worker stores for all.
type upload struct {
	worker     string
	generation ids.Generation
	step       ids.Step
}

// arrival is what comes of an upload.
type arrival struct {
	size int64
	blob ids.Blob // zero until its head has come
	busy bool     // it comes now
}

// holder is what a replica has.
type holder struct {
	addr    string
	digests []ids.Digest
	offer   upload // generation and step
}

func newStates(cfg *Config, n *node, store *blobs.Store, loaded func() *job.Job) *states {
	return &states{cfg: cfg, node: n, store: store, loaded: loaded,
		uploads: map[upload]*arrival{}, moved: map[string]time.Time{}, holders: map[string]holder{}}
}

// run returns when ctx ends. A disk that fails ends the replica.
func (k *states) run(ctx context.Context) error {
	for {
		wait := k.round(ctx)
		timer := time.NewTimer(wait)
		if wait == 0 {
			timer.Stop()
		}
		select {
		case <-k.node.replica.named:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			k.tidy() // what the last entries have made old
			return nil
		}
		timer.Stop()
	}
}

// round does what can be done now and says when to look again, 0: when something changes.
func (k *states) round(ctx context.Context) (wait time.Duration) {
	var wanted []ids.Blob
	var offer *fsm.Offer
	k.node.view(func(m *fsm.Machine) { wanted, offer = m.Blobs(), m.Offered() })
	if len(wanted) == 0 && !k.store.Any() {
		return 0
	}
	missing := false
	for _, b := range wanted {
		if k.store.Has(b.Digest) {
			continue
		}
		if err := k.get(ctx, b); err != nil {
			if ctx.Err() != nil {
				return 0
			}
			k.lack(b, err)
			missing = true
		}
	}
	if !missing {
		k.lacks = time.Time{}
	}
	if !k.tell(ctx, wanted, offer) {
		missing = true
	}
	k.tidy()
	switch {
	case missing:
		k.retry = min(max(2*k.retry, firstBlobRetry), maxBlobRetry)
		return k.retry
	case offer != nil && !k.node.alone():
		k.retry = 0
		return holdsInterval
	}
	k.retry = 0
	return 0
}

// tidy sweeps where that is safe.
func (k *states) tidy() {
	if !k.node.replica.replayed() || k.node.replica.state() != nil {
		return
	}
	if err := k.sweep(); err != nil {
		k.cfg.Logger.Warn("old trainer states stay on disk", "reason", err)
	}
}

// lack says that a blob could not be had, if that lasts: a replica that catches up meets names of long ago.
func (k *states) lack(b ids.Blob, why error) {
	now := time.Now()
	if k.lacks.IsZero() {
		k.lacks = now
	}
	if now.Sub(k.lacks) < lackPatience || now.Sub(k.warned) < lackInterval {
		k.cfg.Logger.Debug("trainer state is not here yet", "digest", b.Digest.Short(), "bytes", b.Size, "reason", why)
		return
	}
	k.warned = now
	k.cfg.Logger.Warn("trainer state is not here; trying again until it is", "digest", b.Digest.Short(), "bytes", b.Size, "missing_for", now.Sub(k.lacks).Round(time.Second), "reason", why)
}

// sweep removes the blobs that nothing names. What a worker stores is named by nothing before it is offered or committed; it stays while its
// generation and the step before last.
//
// It is not for a replica that still replays its log, whose machine names blobs of long ago: see replica.replayed.
func (k *states) sweep() error {
	var wanted []ids.Blob
	var generation ids.Generation
	var step ids.Step
	k.mu.Lock()
	defer k.mu.Unlock()
	k.node.view(func(m *fsm.Machine) {
		wanted, step = m.Blobs(), m.Step()
		generation, _ = m.Generation()
	})
	for u, a := range k.uploads {
		if u.generation < generation || u.step <= step {
			delete(k.uploads, u)
		} else {
			wanted = append(wanted, a.blob)
		}
	}
	return k.store.Keep(func(d ids.Digest) bool {
		return slices.ContainsFunc(wanted, func(b ids.Blob) bool { return b.Digest == d })
	})
}

// get has a blob brought here, by whatever way there is.
func (k *states) get(ctx context.Context, b ids.Blob) error {
	job := k.loaded()
	if job != nil && job.InitialBlob == b {
		return k.write(b, job.Initial.Write)
	}
	if k.node.alone() {
		err := fmt.Errorf("trainer state of %d bytes with digest %s is missing or damaged in %s, and there is no other replica to have it from", b.Size, b.Digest, k.cfg.blobDir())
		if k.node.replica.replayed() && k.lost(b, job) {
			k.node.replica.fail(err)
		}
		return err
	}
	var failed error
	for _, addr := range k.sources(b.Digest) {
		err := k.fetch(ctx, addr, b)
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

// lost says whether a blob that is not here is one that the job in the log needs, and that job, which this replica has loaded, does not start from it.
// A queue's replica may not have loaded it yet.
func (k *states) lost(b ids.Blob, job *job.Job) (is bool) {
	k.node.view(func(m *fsm.Machine) {
		is = m.Blob() == b || m.Best() != nil && m.Best().Blob == b
		is = is && (!k.cfg.Serve || job != nil && job.ID == m.JobID())
	})
	return is
}

// sources are where a blob may be had: replicas that have said that they have it, then the leader, then those that have led.
func (k *states) sources(d ids.Digest) (list []string) {
	own := k.cfg.workerAddr()
	add := func(addr string) {
		if addr != "" && addr != own && !slices.Contains(list, addr) {
			list = append(list, addr)
		}
	}
	k.mu.Lock()
	for _, h := range k.holders {
		if slices.Contains(h.digests, d) {
			add(h.addr)
		}
	}
	k.mu.Unlock()
	slices.Sort(list)
	_, leader := k.node.leader()
	add(leader)
	k.node.view(func(m *fsm.Machine) {
		for _, addr := range m.WorkerAddrs() {
			add(addr)
		}
	})
	return list
}

// wants says whether the machine names the blob.
func (k *states) wants(d ids.Digest) (is bool) {
	k.node.view(func(m *fsm.Machine) {
		is = slices.ContainsFunc(m.Blobs(), func(b ids.Blob) bool { return b.Digest == d })
	})
	return is
}

// write writes a blob that this process makes itself.
func (k *states) write(b ids.Blob, fill func(io.Writer) error) error {
	w, err := k.store.Create(b)
	if err == nil {
		if err = fill(w); err == nil {
			err = w.Commit()
		} else {
			err = errors.Join(err, w.Abort())
		}
	}
	if err != nil {
		k.node.replica.fail(err)
	}
	return err
}

// has says whether a blob, if it is one, is here.
func (k *states) has(b ids.Blob) bool { return b.Size == 0 || k.store.Has(b.Digest) }

// read gives a blob to f, which reads it to its end. A blob that is damaged is had anew.
func (k *states) read(b ids.Blob, f func(io.Reader) error) error {
	r, err := k.store.Open(b.Digest)
	if err != nil {
		return err
	}
	err = errors.Join(f(r), r.Close())
	if errors.Is(err, blobs.ErrDamaged) {
		err = errors.Join(err, k.store.Discard(b.Digest))
		k.node.replica.wake()
	}
	return err
}

// bytes is a whole state, inline or not.
func (k *states) bytes(inline []byte, b ids.Blob) (state []byte, err error) {
	if b.Size == 0 {
		return inline, nil
	}
	var buf bytes.Buffer
	err = k.read(b, func(r io.Reader) error { _, err := buf.ReadFrom(r); return err })
	return buf.Bytes(), err
}

// params are the parameters of a state.
func (k *states) params(inline []byte, b ids.Blob, n int) (params []float32, err error) {
	if b.Size == 0 {
		return optim.ReadParams(bytes.NewReader(inline), n)
	}
	err = k.read(b, func(r io.Reader) error {
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

// lead forgets what was said to this replica when it led before: who said it may have started anew since.
func (k *states) lead() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.holders)
	clear(k.uploads)
	clear(k.moved)
}

// expect says that a worker is to store a state of so many bytes.
func (k *states) expect(u upload, size int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.uploads[u] == nil {
		k.uploads[u] = &arrival{size: size}
	}
}

// note notes that a piece went to a worker or came from it.
func (k *states) note(worker string) {
	if worker == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.moved[worker] = time.Now()
}

// last is when a piece last went to a worker or came from it.
func (k *states) last(worker string) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.moved[worker]
}

// heldByMajority says whether the offered blob is durable on so many replicas, this one among them, that no majority lacks it.
func (k *states) heldByMajority(o fsm.Offer) (bool, error) {
	servers, err := k.node.servers()
	if err != nil {
		return false, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	have, voters := 0, 0
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		h := k.holders[string(s.ID)]
		if s.ID == k.node.id && k.store.Has(o.Digest) || h.offer == (upload{generation: o.Generation, step: o.Step}) && slices.Contains(h.digests, o.Digest) {
			have++
		}
	}
	return 2*have > voters, nil
}
