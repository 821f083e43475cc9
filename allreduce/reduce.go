package allreduce

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// AllReduce replaces acc's numbers by their sums over all members of the ring. All members call it
// for the same steps, each greater than the one before, with accumulators of one length; all end
// with the same integers.
//
// ctx bounds the wait. After an error the ring is dead, and acc's contents are unspecified. A sum
// that leaves the range is an *OverflowError at the member that computes it, and ends the ring for
// all. One call at a time; acc belongs to the ring until it returns.
func (r *Ring) AllReduce(ctx context.Context, step Step, acc *Accumulator) error {
	if err := r.allReduce(ctx, step, acc); err != nil {
		return fmt.Errorf("all-reduce of job %q at rank %d: %w", r.job, r.rank, err)
	}
	return nil
}

func (r *Ring) allReduce(ctx context.Context, step Step, acc *Accumulator) error {
	if err := r.beginStep(step, acc); err != nil {
		r.fail(err)
		return r.firstError(err)
	}
	// A member alone has the sums already.
	if len(r.members) == 1 {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.op = operation{}
		return r.err
	}
	stop := context.AfterFunc(ctx, func() { r.expire(step, context.Cause(ctx)) })
	defer stop()

	// Send what needs no message first. From then on the receivers do the work, and the last of
	// them reports on done.
	r.mu.Lock()
	err := r.advanceLocked(nil)
	r.mu.Unlock()
	if err != nil {
		r.fail(err)
		return r.firstError(err)
	}
	select {
	case <-r.done:
		return nil
	case <-r.life.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.op.running {
		return nil // completed before the ring ended
	}
	r.op = operation{}
	return r.err
}

// beginStep checks the arguments of AllReduce and makes it the operation in progress.
func (r *Ring) beginStep(step Step, acc *Accumulator) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	plan, err := r.planFor(acc.length())
	switch {
	case r.err != nil:
		return r.err
	case r.op.running:
		return fmt.Errorf("step %d is still in progress, want one all-reduce at a time", r.last)
	case r.started && step <= r.last:
		return fmt.Errorf("step %d was begun before, want a later one", r.last)
	case err != nil:
		return err
	}
	r.started, r.last = true, step
	r.op = operation{running: true, acc: acc, plan: plan}
	// A neighbour that left or failed between steps spoils this one.
	for _, i := range r.inLinks {
		if i.left != nil {
			return r.repeatLocked(i.left)
		}
	}
	for _, o := range r.outLinks {
		if o.ended != nil {
			return r.repeatLocked(o.ended)
		}
	}
	// Messages that came early may be for this step.
	for _, i := range r.inLinks {
		i.wake()
	}
	return nil
}

// planFor chooses the schedule for a vector of length numbers, such that each chunk fits a message
// whatever the numbers are. All members choose alike. r.mu is held.
func (r *Ring) planFor(length int) (*schedule, error) {
	size, room := len(r.members), r.node.largestPayload()
	if size == 1 {
		return &r.ringPlan, nil
	}
	if length <= r.node.config.smallVector && maxPacked(length) <= room {
		return &r.doublingPlan, nil
	}
	// Go round the ring as often as it takes for a round's chunks to fit.
	rounds := 1
	if chunk := (length + size - 1) / size; maxPacked(chunk) > room {
		fits := room / maxPacked(blockSize) * blockSize // numbers whose wire form fits: whole blocks,
		if fits == 0 {
			fits = (room - blockHeader) / wordSize // or a part of one
		}
		if fits < 1 {
			return nil, fmt.Errorf("messages of at most %d bytes, want at least %d for a number",
				room+headerSize, maxPacked(1)+headerSize)
		}
		rounds = (chunk + fits - 1) / fits
	}
	if hops := rounds * (size - 1); hops > maxHops {
		return nil, fmt.Errorf("%d numbers in messages of at most %d bytes take %d hops, want at most %d",
			length, room+headerSize, hops, maxHops)
	}
	if rounds == 1 {
		return &r.ringPlan, nil
	}
	if r.roundsPlan.chunks != rounds*size {
		r.roundsPlan = ringSchedule(r.rank, size, rounds)
	}
	return &r.roundsPlan, nil
}

// largestPayload returns the most bytes that a message's payload may have.
func (n *Node) largestPayload() int { return n.config.MaxMessageBytes - headerSize }

// expire ends the ring because the context of a step's caller ended first. The error names the
// neighbour that the step waits for.
func (r *Ring) expire(step Step, cause error) {
	r.mu.Lock()
	running := r.op.running && r.last == step
	var peer *PeerError
	if running {
		if h := r.op.hop(); r.op.sending != nil {
			peer = r.peerErrorLocked(r.op.sending.rank, Sending, cause)
		} else if h.from != noRank {
			peer = r.peerErrorLocked(h.from, Receiving, cause)
		} else {
			peer = r.peerErrorLocked(h.to, Sending, cause)
		}
	}
	r.mu.Unlock()
	if running {
		r.fail(peer)
	}
}

// advanceLocked goes on with the operation in progress until the next message must come or the step
// is complete. by is the link whose receive calls it, nil if AllReduce does. It releases the lock
// while it sends.
func (r *Ring) advanceLocked(by *inLink) error {
	for ; r.err == nil; r.op.next++ {
		if r.op.next == len(r.op.plan.hops) {
			r.op = operation{}
			r.done <- struct{}{}
			return nil
		}
		// The hop's send half.
		h := r.op.plan.hops[r.op.next]
		if h.to != noRank {
			o, buffer := r.outTo(h.to), r.messageLocked(h)
			r.op.sending = o
			r.mu.Unlock()
			err := r.send(o, buffer)
			r.mu.Lock()
			r.op.sending = nil
			if err != nil {
				return err
			}
		}
		// Its receive half: deliver goes on from here when the message comes.
		if h.from != noRank {
			r.op.awaiting = true
			if i := r.inFrom(h.from); i != by {
				i.wake()
			}
			return nil
		}
	}
	return r.err
}

// messageLocked encodes what a hop sends, in a buffer of the node's pool. The ring has not ended.
func (r *Ring) messageLocked(h hop) *[]byte {
	acc := r.op.acc
	lo, hi := span(acc.length(), r.op.plan.chunks, h.send)
	buffer := r.node.buffers.Get(headerSize + maxPacked(hi-lo) + slack)
	b := appendHeader((*buffer)[:0], header{
		kind:       kind(h.phase),
		hop:        h.index,
		job:        r.tag,
		generation: r.generation,
		step:       r.last,
		from:       r.rank,
		length:     acc.length(),
		chunk:      h.send,
		count:      hi - lo,
	})
	*buffer = acc.appendSpan(b, lo, hi)
	seal(*buffer)
	return buffer
}

// receive reads the stream from a neighbour until it ends. It applies a chunk that the operation in
// progress awaits and sends on what is next, without a hand-off. It keeps a message that is early,
// and flow control holds back those behind it: a neighbour may be a step ahead.
func (r *Ring) receive(i *inLink) {
	defer close(i.received)
	var in inbound
	for {
		err := i.stream.RecvMsg(&in)
		if err == io.EOF {
			r.neighbourLeft(i)
			return
		}
		if err != nil {
			r.fail(r.peerError(i.rank, Receiving, plainError(err)))
			return
		}
		m, err := decodeMessage(in.bytes)
		if err != nil {
			r.fail(r.peerError(i.rank, Receiving, err))
			return
		}
		if err := r.handle(i, m); err != nil {
			r.fail(err)
			return
		}
	}
}

// neighbourLeft notes that a neighbour has left in good order. That fails the step in progress if
// it still needs a message from that neighbour.
func (r *Ring) neighbourLeft(i *inLink) {
	peer := r.peerError(i.rank, Receiving, ErrLeft)
	r.mu.Lock()
	i.left = peer
	needed := r.op.running && r.op.plan.receivesFrom(i.rank, r.op.next)
	r.mu.Unlock()
	if needed {
		r.fail(peer)
	}
}

// handle works on one message, or drops it if it is stale. An error ends the ring.
func (r *Ring) handle(i *inLink, m message) error {
	switch {
	case m.job != r.tag:
		return r.badMessage(i, "job tag %016x, want %016x", m.job, r.tag)
	case m.from != i.rank:
		return r.badMessage(i, "sender's rank %d, want %d", m.from, i.rank)
	case m.generation > r.generation:
		return r.badMessage(i, "generation %d, but the stream is of generation %d", m.generation, r.generation)
	case m.generation < r.generation:
		r.node.log.Debug("all-reduce message dropped",
			"job", r.job, "generation", r.generation, "message_generation", m.generation)
		return nil
	case m.kind == kindAbort:
		peer := r.peerError(i.rank, Receiving, errors.New(m.reason()))
		peer.Aborted = true
		return peer
	}
	for {
		when, err := r.deliver(i, m)
		switch {
		case err != nil:
			return err
		case when == stale:
			r.node.log.Debug("all-reduce message dropped",
				"job", r.job, "generation", r.generation, "message_step", m.step)
			return nil
		case when == due:
			return nil
		}
		// It is early: try again when the operation in progress has moved.
		select {
		case <-i.wakeup:
		case <-r.life.Done():
		case <-i.stream.Context().Done():
			return r.peerError(i.rank, Receiving, errors.New("the connection was lost"))
		}
	}
}

// timing places a message relative to the operation in progress.
type timing uint8

const (
	stale timing = iota // it belongs to a step that is over
	early               // it belongs to a later hop or step
	due                 // it is the one awaited
)

// deliver applies a message's chunk and goes on with the operation, if the message is due.
func (r *Ring) deliver(i *inLink, m message) (timing, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	when, err := r.timingLocked(i, m)
	if when != due || err != nil {
		return when, err
	}
	if err := r.applyLocked(i, m); err != nil {
		return due, err
	}
	r.op.awaiting = false
	r.op.next++
	return due, r.advanceLocked(i)
}

// timingLocked returns a message's timing, and an error if the protocol allows the message at no
// time.
func (r *Ring) timingLocked(i *inLink, m message) (timing, error) {
	current := r.started && m.step == r.last
	switch {
	case r.err != nil:
		return early, r.err
	case r.started && m.step < r.last || current && !r.op.running:
		return stale, nil
	case !r.op.running:
		return early, nil
	}
	needed := r.op.plan.receivesFrom(i.rank, r.op.next)
	switch {
	case current && !needed:
		return early, r.badMessageLocked(i, "%v hop %d of step %d, want nothing more from it in this step",
			Phase(m.kind), m.hop, m.step)
	case !current && needed:
		return early, r.badMessageLocked(i, "step %d, but step %d is not complete", m.step, r.last)
	case current && r.op.awaiting && r.op.hop().from == i.rank:
		return due, nil
	}
	return early, nil
}

// applyLocked checks the chunk that is due, and adds it or replaces the accumulator's by it.
func (r *Ring) applyLocked(i *inLink, m message) error {
	acc, want := r.op.acc, r.op.hop()
	lo, hi := span(acc.length(), r.op.plan.chunks, want.receive)
	switch {
	case m.length != acc.length():
		return r.badMessageLocked(i, "a vector of %d numbers, want %d", m.length, acc.length())
	case m.kind != kind(want.phase) || m.hop != want.index || m.chunk != want.receive || m.count != hi-lo:
		return r.badMessageLocked(i, "%v hop %d, chunk %d of %d numbers, want %v hop %d, chunk %d of %d",
			Phase(m.kind), m.hop, m.chunk, m.count, want.phase, want.index, want.receive, hi-lo)
	}
	if want.phase == Gather {
		acc.setSpan(lo, hi, m.payload)
		return nil
	}
	if err := acc.addSpan(lo, hi, m.payload); err != nil {
		return fmt.Errorf("step %d of generation %d: %w", r.last, r.generation, err)
	}
	return nil
}

// badMessage returns the error for a message that does not belong here.
func (r *Ring) badMessage(i *inLink, format string, args ...any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.badMessageLocked(i, format, args...)
}

func (r *Ring) badMessageLocked(i *inLink, format string, args ...any) error {
	return r.peerErrorLocked(i.rank, Receiving, fmt.Errorf("message with "+format, args...))
}
