package allreduce

import (
	"errors"
	"fmt"
)

// ErrClosed is in the chain of errors of a node or ring that was closed here,
// by Close or because the node joined a later generation.
var ErrClosed = errors.New("closed")

// ErrLeft is in the chain of a PeerError whose neighbour closed its ring in good
// order while it was still needed.
var ErrLeft = errors.New("it has left the ring")

// Action is what a member was doing with a neighbour when an error occurred.
type Action string

const (
	// Joining is connecting to a neighbour, or waiting for its stream.
	Joining Action = "join"
	// Sending is sending a chunk to a neighbour, or keeping the stream to it.
	Sending Action = "send to"
	// Receiving is waiting for a chunk from a neighbour.
	Receiving Action = "receive from"
)

// PeerError says that a ring ended because of a neighbour, or while waiting for
// it.
//
// If Aborted is set, the neighbour is alive and has itself ended the ring, for the reason
// that Err gives; the culprit is elsewhere. If every member's deadline passes at
// once, each blames the neighbour that it waits for: the lowest Step, Phase and Hop
// among them is the one next to the member that hangs.
type PeerError struct {
	Generation Generation
	Rank       Rank   // the neighbour's
	ID         string // the neighbour's
	Addr       string // the neighbour's
	Action     Action
	Step       Step  // of the all-reduce in progress; not set when joining
	Phase      Phase // what was awaited; zero between all-reduces
	Hop        int   // within the phase
	Aborted    bool
	Err        error
}

func (e *PeerError) Error() string {
	where := fmt.Sprintf("generation %d", e.Generation)
	switch {
	case e.Phase != 0:
		where = fmt.Sprintf("step %d of generation %d, %v hop %d", e.Step, e.Generation, e.Phase, e.Hop)
	case e.Action != Joining:
		where += ", between steps"
	}
	verb := ""
	if e.Aborted {
		verb = "it aborted because of "
	}
	return fmt.Sprintf("%s: %s rank %d (%s at %s): %s%v", where, e.Action, e.Rank, e.ID, e.Addr, verb, e.Err)
}

func (e *PeerError) Unwrap() error { return e.Err }
