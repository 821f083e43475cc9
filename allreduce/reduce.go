package allreduce

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// AllReduce replaces acc's numbers by their sums over all members of the ring. All
// of them call it for the same steps, each greater than the one before, with
// accumulators of one length; all end with the same integers.
//
// ctx bounds the wait. After an error the ring is dead, and acc's contents
// are unspecified. A sum that leaves the range is an *OverflowError where that
// is seen and ends the ring for all. One call at a time; acc is the ring's until it returns.
func (r *Ring) AllReduce(ctx context.Context, step Step, acc *Accumulator) error {
	if err := r.allReduce(ctx, step, acc); err != nil {
		return fmt.Errorf("all-reduce of job %q at rank %d: %w", r.job, r.rank, err)
	}
	return nil
}

func (r *Ring) allReduce(ctx context.Context, step Step, acc *Accumulator) error {
	if err := r.begin(step, acc); err != nil {
		r.fail(err)
		return r.firstError(err)
	}
	if len(r.members) == 1 {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.op = operation{}
		return r.err
	}
	stop := context.AfterFunc(ctx, func() { r.expire(step, context.Cause(ctx)) })
	defer stop()

	r.mu.Lock()
	err := r.proceedLocked(nil)
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

// begin checks a call of AllReduce and makes it the operation in progress.
func (r *Ring) begin(step Step, acc *Accumulator) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	plan, err := r.planFor(acc.Len())
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
	for _, i := range r.ins {
		if i.left != nil {
			return r.againLocked(i.left)
		}
	}
	for _, o := range r.outs {
		if o.ended != nil {
			return r.againLocked(o.ended)
		}
	}
	// What has come before is for this step, or can now be told to be for none.
	for _, i := range r.ins {
		i.poke()
	}
	return nil
}

// planFor chooses the schedule for a vector of so many numbers, such that each chunk fits a message whatever the numbers are.
// All members choose alike.
func (r *Ring) planFor(length int) (*schedule, error) {
	size, room := len(r.members), r.node.largestPayload()
	if size == 1 {
		return &r.around, nil
	}
	if length <= r.node.config.SmallVector && maxPacked(length) <= room {
		return &r.across, nil
	}
	rounds := 1
	if chunk := (length + size - 1) / size; maxPacked(chunk) > room {
		fits := room / maxPacked(blockSize) * blockSize // numbers whose wire form has room
		if fits == 0 {
			fits = (room - blockHeader) / wordSize
		}
		if fits < 1 {
			return nil, fmt.Errorf("messages of at most %d bytes, want at least %d for a number", room+headerSize, maxPacked(1)+headerSize)
		}
		rounds = (chunk + fits - 1) / fits
	}
	if hops := rounds * (size - 1); hops > maxHops {
		return nil, fmt.Errorf("%d numbers in messages of at most %d bytes take %d hops, want at most %d", length, room+headerSize, hops, maxHops)
	}
	if rounds == 1 {
		return &r.around, nil
	}
	if r.rounds.chunks != rounds*size {
		r.rounds = around(r.rank, size, rounds)
	}
	return &r.rounds, nil
}

func (n *Node) largestPayload() int { return n.config.MaxMessageBytes - headerSize }

// expire ends the ring because the context of a step's caller ended first, and names
// the neighbour that was being waited for.
func (r *Ring) expire(step Step, cause error) {
	r.mu.Lock()
	running := r.op.running && r.last == step
	var peer *PeerError
	if running {
		if h := r.op.hop(); r.op.sending != nil {
			peer = r.peerErrorLocked(r.op.sending.rank, Sending, cause)
		} else if h.from != nobody {
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

// proceedLocked does all of the operation in progress that needs no further message: it sends what is next until a message is
// awaited or the step is complete. by is the neighbour whose receive calls it, nil if AllReduce does. The lock
// is free while it sends.
func (r *Ring) proceedLocked(by *in) error {
	for ; r.err == nil; r.op.next++ {
		if r.op.next == len(r.op.plan.hops) {
			r.op = operation{}
			r.done <- struct{}{}
			return nil
		}
		h := r.op.plan.hops[r.op.next]
		if h.to != nobody {
			o, buffer := r.out(h.to), r.messageLocked(h)
			r.op.sending = o
			r.mu.Unlock()
			err := r.send(o, buffer)
			r.mu.Lock()
			r.op.sending = nil
			if err != nil {
				return err
			}
		}
		if h.from != nobody {
			r.op.awaiting = true
			if i := r.in(h.from); i != by {
				i.poke()
			}
			return nil
		}
	}
	return r.err
}

// messageLocked encodes what a hop sends, in a buffer of the node's. The ring has not ended.
func (r *Ring) messageLocked(h hop) *[]byte {
	acc := r.op.acc
	lo, hi := span(acc.Len(), r.op.plan.chunks, h.send)
	buffer := r.node.buffers.Get(headerSize + maxPacked(hi-lo) + slack)
	b := appendHeader((*buffer)[:0], header{
		kind:       kind(h.phase),
		hop:        h.index,
		job:        r.tag,
		generation: r.generation,
		step:       r.last,
		from:       r.rank,
		length:     acc.Len(),
		chunk:      h.send,
		count:      hi - lo,
	})
	*buffer = acc.appendSpan(b, lo, hi)
	seal(*buffer)
	return buffer
}

// receive reads the stream from a neighbour until it ends. When a chunk is the one that the operation in progress awaits, it
// takes it in and sends on what is next, without a hand-off. A message that is early it holds on
// to, and flow control holds back the rest: a neighbour may be a step ahead.
func (r *Ring) receive(i *in) {
	defer close(i.received)
	var in inbound
	for {
		err := i.stream.RecvMsg(&in)
		if err == io.EOF {
			r.neighbourLeft(i)
			return
		}
		if err != nil {
			r.fail(r.peerError(i.rank, Receiving, plain(err)))
			return
		}
		m, err := decodeMessage(in.bytes)
		if err != nil {
			r.fail(r.peerError(i.rank, Receiving, err))
			return
		}
		if err := r.take(i, m); err != nil {
			r.fail(err)
			return
		}
	}
}

// neighbourLeft notes that a neighbour has left in good order, which matters if the step in progress
// still needs something of it.
func (r *Ring) neighbourLeft(i *in) {
	peer := r.peerError(i.rank, Receiving, ErrLeft)
	r.mu.Lock()
	i.left = peer
	needed := r.op.running && r.op.plan.receivesFrom(i.rank, r.op.next)
	r.mu.Unlock()
	if needed {
		r.fail(peer)
	}
}

// take works on one message, or drops it if it is stale. An error ends the ring.
func (r *Ring) take(i *in, m message) error {
	switch {
	case m.job != r.tag:
		return r.garbled(i, "job tag %016x, want %016x", m.job, r.tag)
	case m.from != i.rank:
		return r.garbled(i, "sender's rank %d, want %d", m.from, i.rank)
	case m.generation > r.generation:
		return r.garbled(i, "generation %d, but the stream is of generation %d", m.generation, r.generation)
	case m.generation < r.generation:
		r.node.log.Debug("all-reduce message dropped", "job", r.job, "generation", r.generation, "message_generation", m.generation)
		return nil
	case m.kind == kindAbort:
		peer := r.peerError(i.rank, Receiving, errors.New(m.reason()))
		peer.Aborted = true
		return peer
	}
	for {
		fit, err := r.try(i, m)
		switch {
		case err != nil:
			return err
		case fit == stale:
			r.node.log.Debug("all-reduce message dropped", "job", r.job, "generation", r.generation, "message_step", m.step)
			return nil
		case fit == due:
			return nil
		}
		select {
		case <-i.turn:
		case <-r.life.Done():
		case <-i.stream.Context().Done():
			return r.peerError(i.rank, Receiving, errors.New("the connection was lost"))
		}
	}
}

// fit is what a message is to the operation in progress.
type fit uint8

const (
	stale fit = iota // of a step that is over
	early            // for a later hop or step
	due              // it is the one awaited
)

// try takes a message's chunk in and goes on with the operation, if the message is due.
func (r *Ring) try(i *in, m message) (fit, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fit, err := r.fitLocked(i, m)
	if fit != due || err != nil {
		return fit, err
	}
	if err := r.takeLocked(i, m); err != nil {
		return due, err
	}
	r.op.awaiting = false
	r.op.next++
	return due, r.proceedLocked(i)
}

func (r *Ring) fitLocked(i *in, m message) (fit, error) {
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
		return early, r.garbledLocked(i, "%v hop %d of step %d, in which nothing more is expected of it", Phase(m.kind), m.hop, m.step)
	case !current && needed:
		return early, r.garbledLocked(i, "step %d, but step %d is not complete", m.step, r.last)
	case current && r.op.awaiting && r.op.hop().from == i.rank:
		return due, nil
	}
	return early, nil
}

// takeLocked checks the chunk that is due, and adds it or takes it over.
func (r *Ring) takeLocked(i *in, m message) error {
	acc, want := r.op.acc, r.op.hop()
	lo, hi := span(acc.Len(), r.op.plan.chunks, want.receive)
	switch {
	case m.length != acc.Len():
		return r.garbledLocked(i, "a vector of %d numbers, want %d", m.length, acc.Len())
	case m.kind != kind(want.phase) || m.hop != want.index || m.chunk != want.receive || m.count != hi-lo:
		return r.garbledLocked(i, "%v hop %d, chunk %d of %d numbers, want %v hop %d, chunk %d of %d",
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

// garbled is the error for a message that has no place here.
func (r *Ring) garbled(i *in, format string, args ...any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.garbledLocked(i, format, args...)
}

func (r *Ring) garbledLocked(i *in, format string, args ...any) error {
	return r.peerErrorLocked(i.rank, Receiving, fmt.Errorf("message with "+format, args...))
}
