package tlsconf

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dptune/dpt/cmd/internal/cmdtest"
	"github.com/dptune/dpt/coordinator"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/lab/tinyrandom"
	"github.com/dptune/dpt/worker"
)

// quickJob takes well under a second.
func quickJob(t *testing.T) job.Settings {
	t.Helper()
	s := job.DefaultSettings()
	s.Model = tinyrandom.Dir(t)
	s.Task, s.PromptLength, s.Bottleneck, s.Shots, s.Epochs, s.BatchSize, s.MicroBatch = "rte", 4, 2, 12, 4, 4, 1
	s.MaxSourceLength, s.MaxTargetLength, s.EvalEvery = 32, 4, -1
	return s
}

// watch reports committed steps.
type watch struct {
	coordinator.Silent
	steps chan ids.Step
}

func (w watch) Step(r fsm.StepRecord, _ int64, _ float64) { w.steps <- r.Step }

// run is a coordinator with its workers, in this process.
type run struct {
	t     *testing.T
	out   string
	addr  string
	steps chan ids.Step
	ended chan error
	wg    sync.WaitGroup
}

func coordinate(t *testing.T, conf *Conf, nodes int, log *slog.Logger) *run {
	t.Helper()
	l, settings := cmdtest.Listen(t), quickJob(t)
	r := &run{
		t: t, out: t.TempDir(), addr: l.Addr().String(),
		steps: make(chan ids.Step, 1024), ended: make(chan error, 1),
	}
	ctx, stop := context.WithCancel(context.Background())
	r.wg.Go(func() {
		_, err := coordinator.Run(ctx, coordinator.Config{
			Settings: settings, Nodes: nodes, MinNodes: 1, Listener: l, Out: r.out, CommitWindow: 1,
			HeartbeatTimeout: 5 * time.Second, StepTimeout: time.Minute, Version: "test", Logger: log,
			Progress:    watch{steps: r.steps},
			Credentials: conf.ServerCredentials("workers"),
		})
		r.ended <- err
	})
	t.Cleanup(func() { stop(); r.wg.Wait() })
	return r
}

// workerConfig is the configuration of a worker for the run, with its connections secured by conf.
func (r *run) workerConfig(conf *Conf, id string, log *slog.Logger) worker.Config {
	return worker.Config{
		Coordinators: []string{r.addr}, ID: id, Listener: cmdtest.Listen(r.t),
		Options: model.Options{Threads: 1}, Version: "test", Logger: log,
		Credentials: worker.Credentials{
			Coordinator: conf.ClientCredentials("the coordinator", false),
			RingServer:  conf.ServerCredentials("the ring"),
			RingClient:  conf.ClientCredentials("the ring neighbour", true),
		},
	}
}

func (r *run) work(conf *Conf, id string, log *slog.Logger) (stop context.CancelFunc, ended <-chan error) {
	ctx, stop := context.WithCancel(context.Background())
	r.t.Cleanup(stop)
	out := make(chan error, 1)
	cfg := r.workerConfig(conf, id, log)
	r.wg.Go(func() { out <- worker.Run(ctx, cfg) })
	return stop, out
}

func (r *run) prompt() []byte {
	r.t.Helper()
	if err := await(r.t, r.ended, "the job to end"); err != nil {
		r.t.Fatalf("coordinator: %v", err)
	}
	return cmdtest.ReadFile(r.t, r.out, "prompt.safetensors")
}

// await receives a value. It fails the test only long after something is wrong.
func await[T any](t *testing.T, from <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(2 * time.Minute):
		t.Fatalf("waited for %s in vain", what)
	}
	return v
}

func TestClusterUnderTLSGivesTheSameBits(t *testing.T) {
	var log record
	plain := coordinate(t, Plain(log.logger()), 1, log.logger())
	_, ended := plain.work(Plain(log.logger()), "alone", log.logger())
	want := plain.prompt()
	if err := await(t, ended, "the worker"); err != nil {
		t.Fatal(err)
	}

	ca, other := newCA(t, "ca"), newCA(t, "other")
	c := newClock()
	cf := files(t, newLeaf(t, ca, "coordinator", start), ca)
	conf := open(t, cf, c, &log)
	r := coordinate(t, conf, 3, log.logger())
	var workers []<-chan error
	var first context.CancelFunc
	for i, id := range []string{"a", "b", "c"} {
		stop, ended := r.work(open(t, files(t, newLeaf(t, ca, id, start), ca), c, &log), id, log.logger())
		if i == 0 {
			first = stop
			foreign := open(t, files(t, newLeaf(t, other, "foreign", start), other, ca), c, &log)
			await(t, r.refuses(foreign, &log, "does not know the CA that signed this program's certificate"),
				"the refusal of a foreign worker")
			await(t, r.refuses(Plain(log.logger()), &log, "wants TLS: give --tls-cert"),
				"the refusal of a worker without TLS")
		} else {
			workers = append(workers, ended)
		}
	}
	for await(t, r.steps, "a step") < 3 {
	}
	// Everything changes under the running job: the coordinator's certificate, and a worker leaves
	// and another joins.
	cf.put(t, newLeaf(t, ca, "coordinator-2", start), ca)
	first()
	// The new one may come too late to a job this short, and then waits for the next.
	r.work(open(t, files(t, newLeaf(t, ca, "d", start), ca), c, &log), "d", log.logger())
	if got := r.prompt(); !bytes.Equal(got, want) {
		t.Error("prompt.safetensors differs from that of a run without TLS")
	}
	for _, ended := range workers {
		if err := await(t, ended, "a worker"); err != nil {
			t.Errorf("worker: %v", err)
		}
	}
}

// refuses runs a worker that must end because it is refused, and wants why in its error, and a line
// in the coordinator's log.
func (r *run) refuses(conf *Conf, log *record, want string) <-chan struct{} {
	done := make(chan struct{})
	before := strings.Count(log.String(), `msg="connection refused" port_for=workers`)
	_, ended := r.work(conf, "refused", log.logger())
	go func() {
		defer close(done)
		err := <-ended
		if err == nil || !strings.Contains(err.Error(), want) ||
			!strings.HasPrefix(err.Error(), "coordinator "+r.addr) {
			r.t.Errorf("the refused worker ends with %v, want %q", err, want)
		}
		refusals := func() int { return strings.Count(log.String(), `msg="connection refused" port_for=workers`) }
		for i := 0; i < 6000 && refusals() == before; i++ { // the line may come after the refusal
			time.Sleep(10 * time.Millisecond)
		}
		if refusals() == before {
			r.t.Error("the coordinator does not log the refusal")
		}
	}()
	return done
}

// TestRingRefusalIsTold: neighbours that refuse each other end the generation, and the coordinator
// learns why.
func TestRingRefusalIsTold(t *testing.T) {
	ca := newCA(t, "ca")
	var log record
	conf := open(t, files(t, newLeaf(t, ca, "a", start), ca), newClock(), &log)
	r := coordinate(t, conf, 2, log.logger())
	r.work(conf, "a", log.logger())
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	r.wg.Go(func() {
		// Its session is as it should be, its ring port is not.
		cfg := r.workerConfig(conf, "b", log.logger())
		cfg.Credentials.RingServer = Plain(log.logger()).ServerCredentials("the ring")
		_ = worker.Run(ctx, cfg)
	})
	told := func() bool {
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, `msg="generation ended"`) && strings.Contains(line, "does not speak TLS") {
				return true
			}
		}
		return false
	}
	for !told() {
		select {
		case err := <-r.ended:
			t.Fatalf("the job ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	if !log.Await(`msg="connection refused" to="the ring neighbour"`) {
		t.Errorf("the worker does not log it: %s", &log)
	}
}

// The coordinator is dialed by a name of several addresses. The worker verifies that name, also
// where the certificate is good for the address, or the name that --tls-server-name gives.
func TestClusterByName(t *testing.T) {
	var log record
	ca, c := newCA(t, "ca"), newClock()
	conf := open(t, files(t, newLeaf(t, ca, "trainer.test", start), ca), c, &log)
	r := coordinate(t, conf, 3, log.logger())
	_, port, _ := net.SplitHostPort(r.addr)
	work := func(id, host string, names map[Role]string) <-chan error {
		secure := open(t, files(t, newLeaf(t, ca, id+".test", start), ca), c, &log)
		secure.serverNames = names
		cfg := r.workerConfig(secure, id, log.logger())
		cfg.Credentials.Coordinator = secure.Toward(Coordinator).ClientCredentials("the coordinator", false)
		cfg.Credentials.RingClient = secure.Toward(Worker).ClientCredentials("the ring neighbour", true)
		cfg.Coordinators = []string{host + ":" + port}
		cfg.Lookup = func(context.Context, string) ([]string, error) { return []string{"::1", "127.0.0.1"}, nil }
		ended := make(chan error, 1)
		ctx, stop := context.WithCancel(context.Background())
		t.Cleanup(stop)
		r.wg.Go(func() { ended <- worker.Run(ctx, cfg) })
		return ended
	}

	// Refused: ::1 is not there, so one of two replicas refuses; the worker goes on until it is
	// stopped, and says why.
	work("x", "other.test", nil)
	if !log.Await("no coordinator; trying again", "other.test:"+port) {
		t.Errorf("the log says nothing of a refused name: %s", &log)
	}
	if !log.Await("certificate is valid for trainer.test, localhost, not other.test") {
		t.Errorf("the log does not say which name was refused: %s", &log)
	}
	work("y", "trainer.test", map[Role]string{Coordinator: "coordinator.test"})
	if !log.Await("certificate is valid for trainer.test, localhost, not coordinator.test") {
		t.Errorf("the log does not say which role's name was refused: %s", &log)
	}

	all := []<-chan error{
		work("a", "trainer.test", nil),
		work("b", "other.test", map[Role]string{Coordinator: "trainer.test"}),
		work("c", "10.0.0.9.test", map[Role]string{Coordinator: "trainer.test"}),
	}
	r.prompt()
	for _, ended := range all {
		if err := await(t, ended, "a worker"); err != nil {
			t.Error(err)
		}
	}
}
