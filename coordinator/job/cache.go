package job

import (
	"fmt"
	"log/slog"
	"sync"
)

// Cache loads the queue's jobs. The leader and the recorder ask for the same job: it is loaded
// once, and stays until another one is. The methods may be called from any goroutine; one that
// comes while a job is being loaded waits for it.
type Cache struct {
	Logger *slog.Logger

	mu  sync.Mutex
	id  string // of job; "" before the first
	job *Job
}

// Loaded returns the job that was loaded last; nil if none was.
func (c *Cache) Loaded() *Job {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.job
}

// Load returns the job of an id, a name and a request (see Settings.Request), from the cache or
// from its files.
func (c *Cache) Load(id, name string, request []byte) (*Job, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id == id {
		return c.job, nil
	}
	s, err := ParseRequest(request)
	if err != nil {
		return nil, fmt.Errorf("job %s: %w", name, err)
	}
	j, err := Load(s, c.Logger)
	if err != nil {
		return nil, fmt.Errorf("job %s: %w", name, err)
	}
	j.ID = id
	c.id, c.job = id, j
	return j, nil
}
