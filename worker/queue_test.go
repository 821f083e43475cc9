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
	serve := func(c *coordinator.Config) { c.Serve = true }
	return startCoordinatorWith(t, job.Settings{}, nodes, out, addr, serve)
}

// dial connects to a coordinator at addr as a client of its services. The test closes the
// connection.
func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// jobs returns a client of the coordinator's Jobs.
func (c *cluster) jobs() coordpb.JobsClient {
	c.t.Helper()
	conn := dial(c.t, c.addr)
	c.t.Cleanup(func() { conn.Close() })
	return coordpb.NewJobsClient(conn)
}

// submit puts a job in the queue.
func (c *cluster) submit(name string, s job.Settings) {
	c.t.Helper()
	request, err := s.Request()
	if err != nil {
		c.t.Fatal(err)
	}
	jobs := c.jobs()
	for range 2 { // as a client does that received no answer
		if err := retryWhileUnavailable(func() error {
			_, err := jobs.Submit(context.Background(), &coordpb.SubmitJob{Name: name, Settings: request})
			return err
		}); err != nil {
			c.t.Fatal(err)
		}
	}
}

// retryWhileUnavailable asks until a leader answers, and returns its answer.
func retryWhileUnavailable(ask func() error) error {
	for {
		err := ask()
		if status.Code(err) != codes.Unavailable {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// await waits until a job has the wanted status, and returns it.
func (c *cluster) await(name, want string) *coordpb.Job {
	c.t.Helper()
	jobs := c.jobs()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var list *coordpb.JobList
		if err := retryWhileUnavailable(func() (err error) {
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

// TestQueue runs jobs one after another on the same workers: some finish, one cannot start, one is
// cancelled, and one goes on after the coordinator was stopped in the middle of it. Each ends with
// the bits that it has alone.
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
	if steps := int64(want.Steps); first.StateDigest != want.StateDigest.String() ||
		first.Step != steps || first.TotalSteps != steps {
		t.Errorf("first ended at step %d with state %s, alone at %d with %s",
			first.Step, first.StateDigest, want.Steps, want.StateDigest)
	}
	if j := c.await("missing", "failed"); !strings.Contains(j.Reason, "nowhere") {
		t.Errorf("a job without data failed because %q, want the directory named", j.Reason)
	}
	c.await("long", "running")
	jobs := c.jobs()
	if _, err := jobs.Cancel(context.Background(), &coordpb.CancelJob{Job: "waits"}); err != nil {
		t.Error(err)
	}
	// Stop the coordinator in the middle of a job and start it again, with the same workers.
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
	if j := c2.await("other", "finished"); len(j.Evaluations) != 3 || j.Best == nil ||
		!strings.Contains(string(j.Best.Metrics), "accuracy") {
		t.Errorf("job %v, want 3 evaluations and the best", j)
	}
	_, err := c2.jobs().Cancel(context.Background(), &coordpb.CancelJob{Job: "other"})
	if status.Code(err) != codes.FailedPrecondition || !contains(err, "finished") {
		t.Errorf("cancel a finished job: %v", err)
	}
	_, err = c2.jobs().Cancel(context.Background(), &coordpb.CancelJob{Job: "unknown"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("cancel an unknown job: %v", err)
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
	if f := readJob(t, filepath.Join(out, "long")); f.Status != "cancelled" {
		t.Errorf("job.json of a cancelled job: %+v", f)
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
	bad := bytes.Replace(good, []byte(`"BatchSize":4`), []byte(`"BatchSize":0`), 1)
	for name, r := range map[string]struct {
		job      string
		settings []byte
		code     codes.Code
		want     string
	}{
		"a path for a name":   {"../x", good, codes.InvalidArgument, `"../x"`},
		"no settings":         {"x", nil, codes.InvalidArgument, "settings"},
		"an unknown setting":  {"x", []byte(`{"Colour":"red"}`), codes.InvalidArgument, "Colour"},
		"a bad setting":       {"x", bad, codes.InvalidArgument, "batch-size"},
		"a name that is used": {"taken", changed, codes.AlreadyExists, "other settings"},
	} {
		_, err := jobs.Submit(context.Background(), &coordpb.SubmitJob{Name: r.job, Settings: r.settings})
		if status.Code(err) != r.code || !contains(err, r.want) {
			t.Errorf("%s: %v, want code %v and %q", name, err, r.code, r.want)
		}
	}
	single := startCoordinator(t, settings(), 1, t.TempDir(), "")
	if err := retryWhileUnavailable(func() error {
		_, err := single.jobs().Submit(context.Background(), &coordpb.SubmitJob{Name: "x", Settings: good})
		return err
	}); status.Code(err) != codes.FailedPrecondition || !contains(err, "--serve") {
		t.Errorf("submitted to a coordinator of one job: %v", err)
	}
}
