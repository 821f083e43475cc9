package job_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/internal/jobtest"
	"github.com/dptune/dpt/coordinator/job"
)

func request(t *testing.T, change func(s *job.Settings)) []byte {
	t.Helper()
	s := jobtest.Settings()
	change(&s)
	data, err := s.Request()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestCacheLoadsAJobOnce: the leader and the recorder get one job, until another id is asked for.
func TestCacheLoadsAJobOnce(t *testing.T) {
	c := &job.Cache{Logger: slog.New(slog.DiscardHandler)}
	if j := c.Loaded(); j != nil {
		t.Fatalf("job %s is loaded before any was asked for", j.ID)
	}
	load := func(id string, request []byte) *job.Job {
		t.Helper()
		j, err := c.Load(id, "name", request)
		if err != nil {
			t.Fatal(err)
		}
		if j.ID != id || c.Loaded() != j {
			t.Errorf("asked for %s: got %s, and another is held", id, j.ID)
		}
		return j
	}
	r := request(t, func(s *job.Settings) { s.Seed = 7 })
	first := load("a", r)
	if first.Spec.Seed != 7 {
		t.Errorf("the seed is %d, want the request's, 7", first.Spec.Seed)
	}
	if again := load("a", r); again != first {
		t.Error("the job was loaded twice")
	}
	if other := load("b", r); other == first {
		t.Error("two ids share a job")
	}
	if again := load("a", r); again == first {
		t.Error("more than one job is held")
	}
}

// TestCacheErrorNamesTheJob: a job that cannot be loaded leaves the one before it in place.
func TestCacheErrorNamesTheJob(t *testing.T) {
	c := &job.Cache{Logger: slog.New(slog.DiscardHandler)}
	held, err := c.Load("a", "good", request(t, func(*job.Settings) {}))
	if err != nil {
		t.Fatal(err)
	}
	for want, request := range map[string][]byte{
		"job bad: settings: ":                                []byte(`{"Sudo":1}`),
		"job bad: data directory \"nowhere\" does not exist": request(t, func(s *job.Settings) { s.Data = "nowhere" }),
	} {
		if _, err := c.Load("b", "bad", request); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want one that starts with %q", err, want)
		}
		if c.Loaded() != held {
			t.Errorf("after %q the job before it is gone", want)
		}
	}
	// What failed may be repaired: it is tried again.
	if _, err := c.Load("b", "mended", request(t, func(*job.Settings) {})); err != nil {
		t.Error(err)
	}
}
