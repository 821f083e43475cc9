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
// are unspecified. A sum that leaves the range is an *OverflowError at one member and
// ends the ring for all. One call at a time; acc is the ring's until it returns.
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

	first, err := r.firstMessage()
	if err == nil {
		err = r.send(first)
	}
	if err != nil {
		r.fail(err)
		return r.firstError(err)
	}
	r.mu.Lock()
	r.op.posted = true
	r.mu.Unlock()
	select {
	case r.posted <- struct{}{}:
	default: // receive has not yet looked since the last time
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
	largest := (acc.Len() + len(r.members) - 1) / len(r.members)
	limit := (r.node.config.MaxMessageBytes - headerSize) / wordSize
	switch {
	case r.err != nil:
		return r.err
	case r.op.running:
		return fmt.Errorf("step %d is still in progress, want one all-reduce at a time", r.last)
	case r.started && step <= r.last:
		return fmt.Errorf("step %d was begun before, want a later one", r.last)
	case len(r.members) > 1 && largest > limit:
		return fmt.Errorf("chunks of %d numbers, want at most %d in a message", largest, limit)
	}
	r.started, r.last = true, step
	r.op = operation{running: true, acc: acc}
	switch {
	case r.fromErr != nil:
		return r.againLocked(r.fromErr)
	case r.toErr != nil:
		return r.againLocked(r.toErr)
	}
	return nil
}

// expire ends the ring because the context of a step's caller ended first, and names
// the neighbour that was being waited for.
func (r *Ring) expire(step Step, cause error) {
	r.mu.Lock()
	peer := r.peerErrorLocked(r.previous(), Receiving, cause)
	if r.sending {
		peer = r.peerErrorLocked(r.next(), Sending, cause)
	}
	running := r.op.running && r.last == step
	r.mu.Unlock()
	if running {
		r.fail(peer)
	}
}

// firstMessage encodes what the first hop sends.
func (r *Ring) firstMessage() (*[]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	return r.messageLocked(0), nil
}

// messageLocked encodes what hop i of the plan sends, in a buffer of the node's.
// The ring has not ended.
func (r *Ring) messageLocked(i int) *[]byte {
	h, acc := r.plan[i], r.op.acc
	lo, hi := span(acc.Len(), len(r.members), h.send)
	buffer := r.node.buffers.Get(headerSize + wordSize*(hi-lo))
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

// receive reads the stream from the previous member until it ends. It works on
// the operation in progress: it takes each chunk in and sends the next one on. While
// there is none it holds on to the message it has read, and flow control holds back the rest:
// the previous member may be a step ahead, by the size-1 chunks of its reduce phase at most.
func (r *Ring) receive() {
	defer close(r.received)
	var in inbound
	for {
		err := r.in.RecvMsg(&in)
		if err == io.EOF {
			r.previousLeft()
			return
		}
		if err != nil {
			r.fail(r.peerError(r.previous(), Receiving, plain(err)))
			return
		}
		m, err := decodeMessage(in.bytes)
		if err != nil {
			r.fail(r.peerError(r.previous(), Receiving, err))
			return
		}
		if err := r.take(m); err != nil {
			r.fail(err)
			return
		}
	}
}

func (r *Ring) previousLeft() {
	peer := r.peerError(r.previous(), Receiving, ErrLeft)
	r.mu.Lock()
	r.fromErr = peer
	running := r.op.running
	r.mu.Unlock()
	if running {
		r.fail(peer)
	}
}

// take works on one message, or drops it if it is stale. An error ends the ring.
func (r *Ring) take(m message) error {
	switch {
	case m.job != r.tag:
		return r.garbled("job tag %016x, want %016x", m.job, r.tag)
	case m.from != r.previous():
		return r.garbled("sender's rank %d, want %d", m.from, r.previous())
	case m.generation > r.generation:
		return r.garbled("generation %d, but the stream is of generation %d", m.generation, r.generation)
	case m.generation < r.generation:
		r.node.log.Debug("all-reduce message dropped", "job", r.job, "generation", r.generation, "message_generation", m.generation)
		return nil
	case m.kind == kindAbort:
		peer := r.peerError(r.previous(), Receiving, errors.New(m.reason()))
		peer.Aborted = true
		return peer
	}
	stale, err := r.awaitStep(m.step)
	if err != nil {
		return err
	}
	if stale {
		r.node.log.Debug("all-reduce message dropped", "job", r.job, "generation", r.generation, "message_step", m.step)
		return nil
	}
	reply, err := r.advance(m)
	if reply == nil || err != nil {
		return err
	}
	return r.send(reply)
}

// awaitStep waits until an all-reduce is in progress that a message of this step
// is for, or is too late for.
func (r *Ring) awaitStep(step Step) (stale bool, err error) {
	for {
		r.mu.Lock()
		posted, running, started, last, err := r.op.posted, r.op.running, r.started, r.last, r.err
		r.mu.Unlock()
		switch {
		case err != nil:
			return false, err
		case started && (step < last || step == last && !running):
			return true, nil
		case running && step > last:
			return false, r.garbled("step %d, but step %d is not complete", step, last)
		case posted && step == last:
			return false, nil
		}
		select {
		case <-r.posted:
		case <-r.life.Done():
		case <-r.in.Context().Done():
			return false, r.peerError(r.previous(), Receiving, errors.New("the connection was lost"))
		}
	}
}

// advance takes in the chunk that m carries, and returns the message to send
// next, or nil if the step is complete.
func (r *Ring) advance(m message) (*[]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	acc, want := r.op.acc, r.plan[r.op.next]
	lo, hi := span(acc.Len(), len(r.members), want.receive)
	switch {
	case m.length != acc.Len():
		return nil, r.garbledLocked("a vector of %d numbers, want %d", m.length, acc.Len())
	case m.kind != kind(want.phase) || m.hop != want.index || m.chunk != want.receive || m.count != hi-lo:
		return nil, r.garbledLocked("%v hop %d, chunk %d of %d numbers, want %v hop %d, chunk %d of %d",
			Phase(m.kind), m.hop, m.chunk, m.count, want.phase, want.index, want.receive, hi-lo)
	}
	if want.phase == Gather {
		acc.setSpan(lo, m.payload)
	} else if err := acc.addSpan(lo, m.payload); err != nil {
		return nil, fmt.Errorf("step %d of generation %d: %w", r.last, r.generation, err)
	}
	if r.op.next+1 == len(r.plan) {
		r.op = operation{}
		r.done <- struct{}{}
		return nil, nil
	}
	r.op.next++
	return r.messageLocked(r.op.next), nil
}

// garbled is the error for a message that has no place here.
func (r *Ring) garbled(format string, args ...any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.garbledLocked(format, args...)
}

func (r *Ring) garbledLocked(format string, args ...any) error {
	return r.peerErrorLocked(r.previous(), Receiving, fmt.Errorf("message with "+format, args...))
}
