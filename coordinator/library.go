package coordinator

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/job"
)

// library loads the queue's jobs. The controller and the recorder ask for the same ones: each is loaded once, and the last stays.
type library struct {
	logger *slog.Logger

	mu  sync.Mutex
	id  string
	job *job.Job
}

// loaded is the job that was loaded last; nil if none was.
func (l *library) loaded() *job.Job {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.job
}

func (l *library) load(q fsm.Queued) (*job.Job, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.id == q.ID {
		return l.job, nil
	}
	s, err := job.ParseRequest(q.Request)
	if err != nil {
		return nil, fmt.Errorf("job %s: %w", q.Name, err)
	}
	job, err := job.Load(s, l.logger)
	if err != nil {
		return nil, fmt.Errorf("job %s: %w", q.Name, err)
	}
	job.ID = q.ID
	l.id, l.job = q.ID, job
	return job, nil
}

// recorded says whether dir has the outputs of a job that is over.
func recorded(dir, jobID string) (bool, error) {
	data, err := os.ReadFile(filepath.Join(dir, "job.json"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("output directory: %w", err)
	}
	var f JobFile
	if err := json.Unmarshal(data, &f); err != nil {
		return false, fmt.Errorf("%s: %w", filepath.Join(dir, "job.json"), err)
	}
	return f.JobID == jobID && f.Status != string(fsm.Running), nil
}
