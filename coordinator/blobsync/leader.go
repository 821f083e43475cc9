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

// What the leader knows of the replicas' blobs, and how it gets to know it.

// maxHeld bounds the blobs that a replica reports: those of the running job and of the jobs that
// are kept whole.
const maxHeld = 64

// Lead forgets what was reported when this replica led before: the others may have restarted since.
func (s *Sync) Lead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.holders)
	clear(s.uploads)
	clear(s.moved)
}

// Expect announces that a worker is to store a state of size bytes.
func (s *Sync) Expect(u Upload, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uploads[u] == nil {
		s.uploads[u] = &arrival{size: size}
	}
}

// LastMoved is when a piece of a blob last went to a worker or came from it.
func (s *Sync) LastMoved(worker string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.moved[worker]
}

// noteMoved notes that a piece went to a worker or came from it.
func (s *Sync) noteMoved(worker string) {
	if worker == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved[worker] = time.Now()
}

// Hear takes a replica's report of what it holds. It refuses a malformed one.
func (s *Sync) Hear(m *coordpb.ReplicaHolds) error {
	h := Holder{Addr: m.WorkerAddr, Generation: ids.Generation(m.Generation), Step: ids.Step(m.Step)}
	if len(h.Addr) > coordpb.MaxNameLength || len(m.Digests) > maxHeld {
		return status.Errorf(codes.InvalidArgument,
			"replica %s holds %d blobs at an address of %d bytes, want at most %d and %d",
			m.Id, len(m.Digests), len(h.Addr), maxHeld, coordpb.MaxNameLength)
	}
	for _, data := range m.Digests {
		d, err := ids.DigestOf(data)
		if err != nil {
			return status.Errorf(codes.InvalidArgument, "replica %s: blob %v", m.Id, err)
		}
		h.Digests = append(h.Digests, d)
	}
	s.mu.Lock()
	s.holders[m.Id] = h
	s.mu.Unlock()
	s.Node.Wake() // it may have what is missing here
	return nil
}

// HeldByMajority reports whether the offered blob is durable on a majority of the replicas, this
// one counted.
func (s *Sync) HeldByMajority(o fsm.Offer) (bool, error) {
	members, err := s.Node.Members()
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, voters := 0, 0
	for _, m := range members {
		if !m.Voter {
			continue
		}
		voters++
		h := s.holders[m.ID]
		sameOffer := h.Generation == o.Generation && h.Step == o.Step
		if m.ID == s.Node.ID() && s.Blobs.Has(o.Digest) || sameOffer && slices.Contains(h.Digests, o.Digest) {
			have++
		}
	}
	return 2*have > voters, nil
}

// report tells the leader which of the wanted blobs are here, unless it has acknowledged the same
// already. It reports whether there is nothing left to tell.
func (s *Sync) report(ctx context.Context, wanted []ids.Blob, offer *fsm.Offer) bool {
	if s.Node.Alone() || s.Node.IsLeader() {
		s.reported = ""
		return true
	}
	id, addr := s.Node.Leader()
	if addr == "" {
		return false
	}
	m := &coordpb.ReplicaHolds{Id: s.Node.ID(), WorkerAddr: s.WorkerAddr}
	for _, b := range wanted {
		if !s.Blobs.Has(b.Digest) {
			continue
		}
		m.Digests = append(m.Digests, b.Digest[:])
		if offer != nil && offer.Blob == b {
			m.Generation, m.Step = uint64(offer.Generation), int64(offer.Step)
		}
	}
	now := fmt.Sprintf("%s %d %x %d %d", id, s.Node.Term(), m.Digests, m.Generation, m.Step)
	if now == s.reported && (offer == nil || time.Since(s.reportedAt) < reportInterval) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	conn, err := s.Dial(addr)
	if err == nil {
		defer conn.Close()
		_, err = coordpb.NewReplicasClient(conn).Holds(ctx, m)
	}
	if err != nil {
		s.Logger.Debug("leader not told which trainer states are here", "leader", addr, "reason", err)
		return false
	}
	s.reported, s.reportedAt = now, time.Now()
	return true
}
