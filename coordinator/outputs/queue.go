package outputs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/job"
)

// RecordQueue records the queue's jobs in their order, until ctx ends or this replica cannot go on.
// A job that has failed, was cancelled or is forgotten does not end it.
func RecordQueue(ctx context.Context, o Options, cache *job.Cache) error {
	changes := o.Node.Changes()
	recorded := map[string]bool{} // by id
	for {
		q, err := nextToRecord(o, recorded)
		if err != nil {
			return err
		}
		if q.ID == "" {
			select {
			case <-changes:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}

		own := o
		own.Dir = filepath.Join(o.Dir, q.Name)
		j, err := cache.Load(q.ID, q.Name, q.Request)
		if err != nil {
			return fmt.Errorf("%w; every replica needs the same data and models", err)
		}

		err = newRecorder(own, j, changes).Run(ctx)
		var failed *FailedError
		switch {
		case err == nil:
			o.Logger.Info("job finished", "job", q.Name, "out", own.Dir)
		case errors.As(err, &failed):
			o.Logger.Error("job failed", "job", q.Name, "step", failed.Step, "reason", failed.Reason)
		case errors.Is(err, errCancelled):
			o.Logger.Info("job cancelled", "job", q.Name)
		case errors.Is(err, errForgotten):
			o.Logger.Warn("job not recorded here", "job", q.Name, "reason", err)
		default:
			return err
		}
		recorded[q.ID] = true
	}
}

// nextToRecord returns the first job that has started and whose outputs this replica lacks; the
// zero value if there is none. It adds to recorded the jobs whose outputs an earlier process has
// written.
func nextToRecord(o Options, recorded map[string]bool) (next fsm.Queued, err error) {
	var ended []fsm.Queued
	var running fsm.Queued
	var unqueued bool // the log's job came by no queue
	o.Node.View(func(m *fsm.Machine) {
		unqueued = m.Started() && m.Request().ID == ""
		for _, e := range m.Ended() {
			if !recorded[e.ID] && e.Archive() != nil {
				ended = append(ended, e.Queued)
			}
		}
		if m.Status() == fsm.Running {
			running = m.Request()
		}
	})
	if unqueued {
		return next, fmt.Errorf("data directory %s holds one job that came by no queue, "+
			"want that of a coordinator that serves one; use another --data-dir", o.DataDir)
	}
	for _, q := range ended {
		there, err := isRecorded(filepath.Join(o.Dir, q.Name), q.ID)
		if err != nil || !there {
			return q, err
		}
		recorded[q.ID] = true
	}
	return running, nil
}
