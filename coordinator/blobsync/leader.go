package blobsync

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
)

// What the leader knows of the replicas' blobs, and how they report it.

// maxHeld bounds the blobs that a replica reports: those of the running job, and of the ended jobs
// whose states the log keeps.
const maxHeld = 64

// BeginTerm forgets what was reported while this replica led before: the others may have restarted
// since.
func (s *Sync) BeginTerm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.holders)
	clear(s.uploads)
	clear(s.transfers)
}

// ExpectUpload admits the upload of a state of size bytes, which a plan asks a worker for.
func (s *Sync) ExpectUpload(u Upload, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uploads[u] == nil {
		s.uploads[u] = &arrival{size: size}
	}
}

// LastTransfer is when a piece of a blob last went to a worker or came from it; zero if none has.
func (s *Sync) LastTransfer(worker string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transfers[worker]
}

// noteTransfer records that a piece went to a worker or came from it. The worker is "" if the peer
// is a replica.
func (s *Sync) noteTransfer(worker string) {
	if worker == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.transfers[worker] = time.Now()
}

// RecordReport records a replica's report of what it holds. It refuses a malformed one.
func (s *Sync) RecordReport(m *coordpb.ReplicaHolds) error {
	h := holder{addr: m.WorkerAddr, generation: ids.Generation(m.Generation), step: ids.Step(m.Step)}
	if len(h.addr) > coordpb.MaxNameLength || len(m.Digests) > maxHeld {
		return status.Errorf(codes.InvalidArgument,
			"replica %s holds %d blobs at an address of %d bytes, want at most %d and %d",
			m.Id, len(m.Digests), len(h.addr), maxHeld, coordpb.MaxNameLength)
	}
	for _, data := range m.Digests {
		d, err := ids.DigestOf(data)
		if err != nil {
			return status.Errorf(codes.InvalidArgument, "replica %s: blob %v", m.Id, err)
		}
		h.digests = append(h.digests, d)
	}
	s.mu.Lock()
	s.holders[m.Id] = h
	s.mu.Unlock()
	s.opts.Node.Wake() // Run may fetch from it what is missing here
	return nil
}

// HeldByQuorum reports whether the offered blob is on disk at a majority of the replicas, this
// one included.
func (s *Sync) HeldByQuorum(o fsm.Offer) (bool, error) {
	members, err := s.opts.Node.Members()
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	holding, voters := 0, 0
	for _, m := range members {
		if !m.Voter {
			continue
		}
		voters++
		h := s.holders[m.ID]
		sameOffer := h.generation == o.Generation && h.step == o.Step
		if m.ID == s.opts.Node.ID() && s.opts.Blobs.Has(o.Digest) || sameOffer && slices.Contains(h.digests, o.Digest) {
			holding++
		}
	}
	return 2*holding > voters, nil
}

// report tells the leader which of the wanted blobs are here, unless it has acknowledged that
// already. It returns whether the leader knows.
func (s *Sync) report(ctx context.Context, wanted []ids.Blob, offer *fsm.Offer) bool {
	if s.opts.Node.Alone() || s.opts.Node.IsLeader() {
		s.reported = ""
		return true
	}
	id, addr := s.opts.Node.Leader()
	if addr == "" {
		return false
	}

	// What is here, and whether the offered blob is.
	m := &coordpb.ReplicaHolds{Id: s.opts.Node.ID(), WorkerAddr: s.opts.WorkerAddr}
	for _, b := range wanted {
		if !s.opts.Blobs.Has(b.Digest) {
			continue
		}
		m.Digests = append(m.Digests, b.Digest[:])
		if offer != nil && offer.Blob == b {
			m.Generation, m.Step = uint64(offer.Generation), int64(offer.Step)
		}
	}

	// What this leader has acknowledged in this term is not sent again, except every reportInterval
	// while an offer stands.
	content := fmt.Sprintf("%s %d %x %d %d", id, s.opts.Node.Term(), m.Digests, m.Generation, m.Step)
	if content == s.reported && (offer == nil || time.Since(s.reportedAt) < reportInterval) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	conn, err := s.opts.Dial(addr)
	if err == nil {
		defer conn.Close()
		_, err = coordpb.NewReplicasClient(conn).Holds(ctx, m)
	}
	if err != nil {
		s.opts.Logger.Debug("leader not told which trainer states are here", "leader", addr, "reason", err)
		return false
	}
	s.reported, s.reportedAt = content, time.Now()
	return true
}
