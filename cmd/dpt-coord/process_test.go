package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dptune/dpt/cmd/internal/cmdtest"
	"github.com/dptune/dpt/model/lab/tinyrandom"
)

// These tests run the real programs as processes and send them real signals.

var (
	programs  string // directory of the built programs
	tinyModel string // directory of the model that they train on
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "dpt-programs")
	if err != nil {
		panic(err)
	}
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", dir+string(filepath.Separator),
		"../dpt-coord", "../dpt-worker", "../dpt")
	out, err := build.CombinedOutput()
	if err != nil {
		panic("go build: " + err.Error() + "\n" + string(out))
	}
	programs = dir
	code := tinyrandom.Main(m, &tinyModel)
	os.RemoveAll(dir)
	os.Exit(code)
}

// smallJob is a job of some hundred steps of a few milliseconds.
func smallJob(out string, more ...string) []string {
	return append([]string{
		"--model", tinyModel, "--task", "cb", "--shots", "16", "--batch-size", "4",
		"--prompt-length", "4", "--bottleneck", "2", "--max-source-length", "32", "--max-target-length", "4",
		"--eval-every", "-1", "--out", out,
	}, more...)
}

type process struct {
	*exec.Cmd
	t              *testing.T
	stdout, stderr cmdtest.Output
	done           chan error // receives the error of Wait
}

func start(t *testing.T, program string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(filepath.Join(programs, program), args...), t: t, done: make(chan error, 1)}
	p.Stdout, p.Stderr = &p.stdout, &p.stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.Wait() }()
	t.Cleanup(func() { _ = p.Process.Kill() })
	return p
}

// wait returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case err := <-p.done:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			p.t.Fatal(err)
		}
		return p.ProcessState.ExitCode()
	case <-time.After(2 * time.Minute):
		p.t.Fatalf("%s does not end", p.Path)
	}
	return -1
}

func (p *process) mustEnd(code int) {
	p.t.Helper()
	if got := p.wait(); got != code {
		p.t.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", got, code, p.stdout.String(), p.stderr.String())
	}
}

// countLines counts the lines of a file; 0 while it does not exist.
func countLines(path string) int {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	return bytes.Count(data, []byte("\n"))
}

// awaitLines waits until the file has n lines.
func awaitLines(t *testing.T, path string, n int) {
	t.Helper()
	for range 1200 {
		if countLines(path) >= n {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s does not reach %d lines", path, n)
}

func TestInterruptedJobGoesOnToTheSameBits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	whole, cut := filepath.Join(dir, "whole"), filepath.Join(dir, "cut")
	undisturbed := start(t, "dpt-coord", smallJob(whole, "--steps", "60", "--local", "--nodes", "1")...)
	undisturbed.mustEnd(0)
	if out := undisturbed.stdout.String(); !strings.Contains(out, "training loss") ||
		!strings.Contains(out, filepath.Join(whole, "prompt.safetensors")) {
		t.Errorf("summary does not say the loss and where the prompt is:\n%s", out)
	}

	args := smallJob(cut, "--steps", "60", "--local", "--nodes", "2")
	for i, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		p := start(t, "dpt-coord", args...)
		awaitLines(t, filepath.Join(cut, "metrics.jsonl"), 10*(i+1))
		if err := p.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		code := p.wait()
		if signal == syscall.SIGKILL {
			continue
		}
		if code != 1 || !strings.Contains(p.stderr.String(), "the same command goes on from there: dpt-coord ") {
			t.Errorf("%v: exit code %d, want 1 and how to go on:\n%s", signal, code, p.stderr.String())
		}
	}
	start(t, "dpt-coord", args...).mustEnd(0)
	if !bytes.Equal(cmdtest.ReadFile(t, whole, "prompt.safetensors"), cmdtest.ReadFile(t, cut, "prompt.safetensors")) {
		t.Error("prompt.safetensors of the interrupted run differs")
	}
}

// Without --model and --data the programs train and evaluate on what they hold.
func TestEverythingEmbedded(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	start(t, "dpt-coord", "--local", "--nodes", "2", "--shots", "4", "--batch-size", "4", "--steps", "2",
		"--prompt-length", "4", "--bottleneck", "2", "--max-source-length", "48", "--eval-every", "-1",
		"--out", out).mustEnd(0)
	if lines := bytes.Count(cmdtest.ReadFile(t, out, "metrics.jsonl"), []byte("\n")); lines != 2 {
		t.Errorf("%d lines of metrics, want one for each of 2 steps", lines)
	}
	eval := start(t, "dpt", "eval", "--prompt", filepath.Join(out, "prompt.safetensors"), "--limit", "2",
		"--max-target-length", "2")
	eval.mustEnd(0)
	printed, warned := eval.stdout.String(), eval.stderr.String()
	if warned != "" || !strings.Contains(printed, `"task":"rte","split":"val"`) {
		t.Errorf("dpt eval of the prompt prints %s and warns %q, want a report and no warning", printed, warned)
	}
}

func TestKilledWorkersLeaveNoTrace(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: skipped with -short")
	}
	t.Parallel()
	dir := t.TempDir()
	whole, hurt := filepath.Join(dir, "whole"), filepath.Join(dir, "hurt")
	start(t, "dpt-coord", smallJob(whole, "--steps", "60", "--local", "--nodes", "1")...).mustEnd(0)

	coord := start(t, "dpt-coord", smallJob(hurt, "--steps", "60", "--nodes", "2", "--listen", "127.0.0.1:0",
		"--log-format", "json", "--heartbeat-timeout", "1s")...)
	addr := workerAddrOf(t, coord)
	first, second := start(t, "dpt-worker", "--coord", addr, "--cpu"), start(t, "dpt-worker", "--coord", addr)
	metrics := filepath.Join(hurt, "metrics.jsonl")
	awaitLines(t, metrics, 5)
	if err := first.Process.Kill(); err != nil { // it cannot tell the coordinator
		t.Fatal(err)
	}
	third := start(t, "dpt-worker", "--coord", addr)
	awaitLines(t, metrics, 15)
	if err := third.Process.Signal(syscall.SIGSTOP); err != nil { // connected, and silent
		t.Fatal(err)
	}
	coord.mustEnd(0)
	second.mustEnd(0)
	if !bytes.Equal(cmdtest.ReadFile(t, whole, "prompt.safetensors"), cmdtest.ReadFile(t, hurt, "prompt.safetensors")) {
		t.Error("prompt.safetensors of the run with killed workers differs")
	}
}

// workersPort finds the address for workers in a coordinator's log, in either format.
var workersPort = regexp.MustCompile(`listening for workers.*?address"?[=:]"?([^"\s]+)`)

// workerAddrOf waits until a coordinator listens for workers and returns the address.
func workerAddrOf(t *testing.T, p *process) string {
	t.Helper()
	for range 600 {
		if m := workersPort.FindStringSubmatch(p.stderr.String()); m != nil {
			return m[1]
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("the coordinator does not say where it listens:\n%s", p.stderr.String())
	return ""
}

func TestWrongUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		program string
		args    []string
		code    int
		says    string
	}{
		{"unknown flag", "dpt-coord", []string{"--node", "4"}, 2, "did you mean --nodes?"},
		{"flag out of range", "dpt-coord", []string{"--bottleneck", "0"}, 2, "--bottleneck 0: want 1 to 1048576"},
		{"bottleneck of a method without", "dpt-coord", []string{"--method", "pt", "--bottleneck", "4"}, 2,
			"--bottleneck: 4, want none with --method pt"},
		{"task twice", "dpt-coord", []string{"--task", "rte,cb,rte"}, 2, "want one of boolq, cb"},
		{"mixture of one task", "dpt-coord", []string{"--mixture", "equal"}, 2, "--mixture: equal, want several tasks"},
		{"unknown task", "dpt-coord", []string{"--task", "squad"}, 2, "want one of boolq, cb"},
		{"micro-batch beyond the batch", "dpt-coord", []string{"--batch-size", "4", "--micro-batch", "5"}, 2,
			"--micro-batch: 5, want 1 to the batch size, 4"},
		{"beyond this machine", "dpt-coord", []string{"--listen", "0.0.0.0:0"}, 2,
			"reaches beyond this machine without TLS, want --tls-cert, --tls-key and --tls-ca (dpt certs makes " +
				"them), a loopback address or --insecure"},
		{"worker beyond this machine", "dpt-worker", []string{"--coord", "192.0.2.1:7070"}, 2,
			"--coord 192.0.2.1:7070: reaches beyond this machine without TLS"},
		{"half of TLS", "dpt-coord", []string{"--tls-cert", "a.pem"}, 2, "--tls-cert without --tls-key and --tls-ca"},
		{"TLS and not", "dpt-worker", []string{"--tls-cert", "a", "--tls-key", "b", "--tls-ca", "c", "--insecure"}, 2,
			"--insecure and --tls-cert, want one of them"},
		{"missing certificate", "dpt-coord", []string{"--tls-cert", "nowhere", "--tls-key", "b", "--tls-ca", "c"}, 1,
			"--tls-cert: open nowhere: no such file"},
		{"peers without id", "dpt-coord", []string{"--peers", "a=127.0.0.1:1"}, 2, "--peers without --id"},
		{"id without peers", "dpt-coord", []string{"--id", "a"}, 2, "--id without --peers"},
		{"id not among the peers", "dpt-coord", []string{"--id", "b", "--peers", "a=127.0.0.1:1"}, 2,
			"--id b: want one of --peers"},
		{"peer without id", "dpt-coord", []string{"--id", "a", "--peers", "127.0.0.1:1"}, 2, "want ID=HOST:PORT"},
		{"peer twice", "dpt-coord", []string{"--id", "a", "--peers", "a=127.0.0.1:1,b=127.0.0.1:1,c=127.0.0.1:2"}, 2,
			"b=127.0.0.1:1 is there twice"},
		{"even number of peers", "dpt-coord", []string{"--id", "a", "--peers", "a=127.0.0.1:1,b=127.0.0.1:2"}, 2,
			"found 2 replicas, want an odd number"},
		{"peers beyond this machine", "dpt-coord", []string{"--id", "a", "--peers", "a=10.0.0.1:1"}, 2,
			"--peers 10.0.0.1:1: reaches beyond this machine without TLS"},
		{"missing data", "dpt-coord", []string{"--listen", "127.0.0.1:0", "--data", "nowhere"}, 1, "nowhere"},
		{"missing model", "dpt-coord", []string{"--listen", "127.0.0.1:0", "--model", "nowhere"}, 1, "nowhere"},
		{"missing init", "dpt-coord", []string{"--listen", "127.0.0.1:0", "--init", "nowhere.safetensors"}, 1,
			"nowhere.safetensors"},
		{"unlabeled split", "dpt-coord", []string{"--listen", "127.0.0.1:0", "--eval-split", "test"}, 2,
			"--eval-split test"},
		{"GPU without CUDA", "dpt-worker", []string{"--gpu", "0"}, 1, "gpu 0: this build has no CUDA engine"},
		{"both devices", "dpt-worker", []string{"--gpu", "0", "--cpu"}, 2, "want one of them or neither"},
		{"no port", "dpt-worker", []string{"--coord", "localhost"}, 2, "want HOST:PORT"},
		{"help", "dpt-coord", []string{"--help"}, 0, ""},
		{"version", "dpt-worker", []string{"--version"}, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := c.args
			if c.program == "dpt-coord" && c.code != 0 {
				args = append(args, "--out", t.TempDir())
			}
			p := start(t, c.program, args...)
			p.mustEnd(c.code)
			lines := strings.Split(strings.TrimSpace(p.stderr.String()), "\n")
			if last := lines[len(lines)-1]; !strings.Contains(last, c.says) {
				t.Errorf("says %q, want %q in it", last, c.says)
			}
			if c.code == 2 && len(lines) != 1 {
				t.Errorf("%d lines on standard error, want one:\n%s", len(lines), p.stderr.String())
			}
			if c.code == 0 && (p.stdout.String() == "" || p.stderr.String() != "") {
				t.Errorf("stdout %q, stderr %q, want all on stdout", p.stdout.String(), p.stderr.String())
			}
		})
	}
}
