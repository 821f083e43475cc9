package worker_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/job"
)

// startQueue runs a coordinator that takes its jobs from a queue.
func startQueue(t *testing.T, nodes int, out, addr string) *cluster {
	t.Helper()
	return startCoordinatorWith(t, job.Settings{}, nodes, out, addr, func(c *coordinator.Config) { c.Serve = true })
}

// jobs asks the cluster's coordinator about its jobs.
func (c *cluster) jobs() coordpb.JobsClient {
	c.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+c.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	return coordpb.NewJobsClient(conn)
}

func (c *cluster) submit(name string, s job.Settings) {
	c.t.Helper()
	request, err := s.Request()
	if err != nil {
		c.t.Fatal(err)
	}
	jobs := c.jobs()
	for range 2 { // a client that heard no answer asks again
		if err := leading(func() error {
			_, err := jobs.Submit(context.Background(), &coordpb.SubmitJob{Name: name, Settings: request})
			return err
		}); err != nil {
			c.t.Fatal(err)
		}
	}
}

// leading asks until a leader is there.
func leading(ask func() error) error {
	for {
		err := ask()
		if status.Code(err) != codes.Unavailable {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// await waits until the job has the status.
func (c *cluster) await(name, want string) *coordpb.Job {
	c.t.Helper()
	jobs := c.jobs()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var list *coordpb.JobList
		if err := leading(func() (err error) {
			list, err = jobs.List(context.Background(), &coordpb.ListJobs{Evaluations: true, Names: []string{name}})
			return err
		}); err != nil {
			c.t.Fatal(err)
		}
		if len(list.Jobs) == 1 && list.Jobs[0].Status == want {
			return list.Jobs[0]
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("job %s: %v, want it %s", name, list.Jobs, want)
		}
	}
}

// TestQueue runs jobs one after another on the same workers: some end well, one cannot start, one is cancelled, and one goes on after the coordinator
// was stopped in its middle. Each ends with the bits that it has alone.
func TestQueue(t *testing.T) {
	alone := startCoordinator(t, settings(), 2, t.TempDir(), "")
	alone.startWorker("a", nil)
	alone.startWorker("b", nil)
	want := alone.finish()

	out := t.TempDir()
	c := startQueue(t, 2, out, "")
	c.startWorker("a", nil)
	c.startWorker("b", nil)
	long, missing, other := settings(), settings(), settings()
	long.Epochs = 10000
	missing.Data = filepath.Join(out, "nowhere")
	other.Seed, other.EvalEvery, other.EvalFirst = 7, 0, true
	c.submit("first", settings())
	c.submit("missing", missing)
	c.submit("long", long)
	c.submit("waits", settings())
	c.submit("other", other)

	first := c.await("first", "finished")
	if first.StateDigest != want.StateDigest.String() || first.Step != int64(want.Steps) || first.TotalSteps != int64(want.Steps) {
		t.Errorf("first ended at step %d with state %s, alone at %d with %s", first.Step, first.StateDigest, want.Steps, want.StateDigest)
	}
	if j := c.await("missing", "failed"); !strings.Contains(j.Reason, "nowhere") {
		t.Errorf("a job without data failed because %q, want the directory named", j.Reason)
	}
	c.await("long", "running")
	jobs := c.jobs()
	if _, err := jobs.Cancel(context.Background(), &coordpb.CancelJob{Job: "waits"}); err != nil {
		t.Error(err)
	}
	// Stopped in the middle of a job and started again, with the workers of before.
	for step := c.await("long", "running").Step; c.await("long", "running").Step < step+3; {
		time.Sleep(10 * time.Millisecond)
	}
	c.stop()
	if o := <-c.result; o.err != nil {
		t.Fatalf("stopped: %v", o.err)
	}
	c2 := startQueue(t, 2, out, c.addr)
	before := c2.await("long", "running").Step
	if before < 3 {
		t.Errorf("job goes on at step %d, want at least 3", before)
	}
	for c2.await("long", "running").Step < before+3 {
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := c2.jobs().Cancel(context.Background(), &coordpb.CancelJob{Job: "long"}); err != nil {
		t.Error(err)
	}
	c2.await("long", "cancelled")
	c2.await("waits", "cancelled")
	if j := c2.await("other", "finished"); len(j.Evaluations) != 3 || j.Best == nil || !strings.Contains(string(j.Best.Metrics), "accuracy") {
		t.Errorf("job %v, want 3 evaluations and the best", j)
	}
	if _, err := c2.jobs().Cancel(context.Background(), &coordpb.CancelJob{Job: "other"}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "finished") {
		t.Errorf("cancel a finished job: %v", err)
	}
	if _, err := c2.jobs().Cancel(context.Background(), &coordpb.CancelJob{Job: "nobody's"}); status.Code(err) != codes.NotFound {
		t.Errorf("cancel no job: %v", err)
	}
	c2.stop()
	if o := <-c2.result; o.err != nil {
		t.Fatalf("stopped: %v", o.err)
	}
	for _, file := range []string{"prompt.safetensors", "final.safetensors"} {
		a, err := os.ReadFile(filepath.Join(alone.out, file))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(out, "first", file))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: %d bytes of the queue's job, %d alone, or others (%v)", file, len(b), len(a), err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(out, "long", "job.json")); err != nil || !strings.Contains(string(data), `"status": "cancelled"`) {
		t.Errorf("job.json of a cancelled job: %s (%v)", data, err)
	}
}

func TestSubmitRefuses(t *testing.T) {
	good, err := settings().Request()
	if err != nil {
		t.Fatal(err)
	}
	other := settings()
	other.Seed++
	changed, err := other.Request()
	if err != nil {
		t.Fatal(err)
	}
	c := startQueue(t, 1, t.TempDir(), "")
	c.submit("taken", settings())
	jobs := c.jobs()
	for name, r := range map[string]struct {
		job  *coordpb.SubmitJob
		code codes.Code
		want string
	}{
		"a path for a name":   {&coordpb.SubmitJob{Name: "../x", Settings: good}, codes.InvalidArgument, `"../x"`},
		"no settings":         {&coordpb.SubmitJob{Name: "x"}, codes.InvalidArgument, "settings"},
		"an unknown setting":  {&coordpb.SubmitJob{Name: "x", Settings: []byte(`{"Colour":"red"}`)}, codes.InvalidArgument, "Colour"},
		"a bad setting":       {&coordpb.SubmitJob{Name: "x", Settings: bytes.Replace(good, []byte(`"BatchSize":4`), []byte(`"BatchSize":0`), 1)}, codes.InvalidArgument, "batch-size"},
		"a name that is used": {&coordpb.SubmitJob{Name: "taken", Settings: changed}, codes.AlreadyExists, "other settings"},
	} {
		if _, err := jobs.Submit(context.Background(), r.job); status.Code(err) != r.code || !strings.Contains(err.Error(), r.want) {
			t.Errorf("%s: %v, want code %v and %q", name, err, r.code, r.want)
		}
	}
	single := startCoordinator(t, settings(), 1, t.TempDir(), "")
	if err := leading(func() error {
		_, err := single.jobs().Submit(context.Background(), &coordpb.SubmitJob{Name: "x", Settings: good})
		return err
	}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "--serve") {
		t.Errorf("submitted to a coordinator of one job: %v", err)
	}
}
