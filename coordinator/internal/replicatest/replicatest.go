// Package replicatest starts replicas for tests, and makes the log entries of a small job.
package replicatest

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/dptune/dpt/coordinator/fsm/fsmpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/replica"
)

// OpenLeader opens a replica that is alone and waits until it leads. The caller closes it.
func OpenLeader(t testing.TB, dir string) *replica.Node {
	t.Helper()
	n, err := replica.Open(dir, replica.Storage{}, nil, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	AwaitLeadership(t, n)
	return n
}

// AwaitLeadership waits until a replica leads and has applied its log.
func AwaitLeadership(t testing.TB, n *replica.Node) {
	t.Helper()
	for {
		select {
		case lead := <-n.Leadership():
			if lead {
				if err := n.Barrier(); err != nil {
					t.Fatal(err)
				}
				return
			}
		case <-time.After(time.Minute):
			t.Fatal("the replica does not lead")
		}
	}
}

// Commit commits entries in their order, one after another.
func Commit(t testing.TB, n *replica.Node, entries ...*fsmpb.Entry) {
	t.Helper()
	for _, e := range entries {
		if err := n.Propose(e).Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

// Start makes the entries that start a job of total steps, and its first generation of one worker.
func Start(total int64) []*fsmpb.Entry {
	state := []byte("state 0")
	d := ids.Sum(state)
	job := &fsmpb.JobStarted{
		JobId:         "job",
		Spec:          []byte(`{}`),
		TotalSteps:    total,
		StepsPerEpoch: total,
		State:         state,
		StateDigest:   d[:],
	}
	generation := &fsmpb.GenerationStarted{Generation: 1, Members: []*fsmpb.Member{{Id: "w", Addr: "w:1"}}}
	return []*fsmpb.Entry{
		{Body: &fsmpb.Entry_JobStarted{JobStarted: job}},
		{Body: &fsmpb.Entry_GenerationStarted{GenerationStarted: generation}},
	}
}

// Steps makes the entries of steps with states of the given size, each filled with a byte that
// tells the step: 'A' + step%20.
func Steps(from, to int64, size int) (list []*fsmpb.Entry) {
	for t := from; t <= to; t++ {
		state := bytes.Repeat([]byte{byte('A' + t%20)}, size)
		d, b := ids.Sum(state), ids.Sum([]byte{byte(t)})
		list = append(list, &fsmpb.Entry{Body: &fsmpb.Entry_StepCommitted{StepCommitted: &fsmpb.StepCommitted{
			Generation:  1,
			Step:        t,
			BatchDigest: b[:],
			StateDigest: d[:],
			State:       state,
			LossSum:     1,
			Tokens:      1,
			Workers:     1,
		}}})
	}
	return list
}
