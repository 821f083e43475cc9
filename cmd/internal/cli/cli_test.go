package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/dptune/dpt/cmd/internal/cmdtest"
)

// settings are bound to one flag of each kind.
type settings struct {
	nodes   int
	steps   int64
	seed    uint64
	lr      float64
	warmup  float64
	model   string
	data    string
	listen  string
	tmpl    string
	wait    time.Duration
	local   bool
	peers   []string
	prompt  string
	created string
	logging Log
}

func newSettings() *settings {
	return &settings{
		nodes: 4, seed: 42, lr: 0.3, warmup: 0.1, listen: "127.0.0.1:7070", tmpl: "dpt", wait: time.Second,
		peers: []string{"a:1"}, logging: DefaultLog(),
	}
}

func (s *settings) command() *Command {
	c := NewCommand("prog sub", "--prompt FILE [flags]", "Does one thing, and says in a paragraph that is long "+
		"enough to be set on more than one line what that thing is.")
	c.Examples = []Example{{Text: "The usual:", Command: "prog sub --prompt p.safetensors"}}
	c.Notes = "One note.\n\nAnother."
	c.Engines = []string{"portable"}
	g := c.Group("Job")
	g.Int(&s.nodes, "nodes", "workers to wait for, `N`", AtLeast(1))
	g.Int64(&s.steps, "steps", "steps to train", AtLeast(int64(0)))
	g.Uint64(&s.seed, "seed", "seed of every draw")
	g.Float(&s.lr, "lr", "peak learning rate", MoreThan(0.0))
	g.Float(&s.warmup, "warmup", "warm-up `FRACTION`", Fraction)
	g = c.Group("Files")
	g.String(&s.model, "model", "model `DIR`", ExistingDir).DefaultText("the embedded tiny model")
	g.String(&s.data, "data", "`FILE` of pairs", ExistingFile)
	g.String(&s.prompt, "prompt", "prompt `FILE`").Required()
	g.String(&s.created, "new", "`FILE` to write", NewFile)
	g = c.Group("Network")
	g.String(&s.listen, "listen", "`ADDR` to listen on", HostPort)
	g.Strings(&s.peers, "peers", "coordinators, `ADDR,...`", HostPort)
	g.Duration(&s.wait, "wait", "how long to wait", AtLeast(time.Duration(0)))
	g = c.Group("Job")
	g.Choice(&s.tmpl, "template", "text format", "dpt", "t5")
	g.Bool(&s.local, "local", "start the workers too")
	s.logging.Bind(c.Group("Output"))
	return c
}

func TestParse(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	cmdtest.WriteFile(t, file, nil)
	s := newSettings()
	c := s.command()
	err := c.Parse(strings.Fields("--nodes=2 --steps 9000000000 --seed 18446744073709551615 --lr 1e-3 --warmup 1 " +
		"--template t5 --local --listen :0 --peers b:2,c:3 --peers d:4 --wait 5m --prompt p " +
		"--model " + dir + " --data " + file))
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		nodes: 2, steps: 9e9, seed: 1<<64 - 1, lr: 1e-3, warmup: 1, tmpl: "t5", local: true, listen: ":0",
		peers: []string{"b:2", "c:3", "d:4"}, wait: 5 * time.Minute, prompt: "p", model: dir, data: file,
		logging: DefaultLog(),
	}
	if got, want := fmt.Sprintf("%+v", *s), fmt.Sprintf("%+v", want); got != want {
		t.Errorf("parsed\n%s, want\n%s", got, want)
	}
	if !c.Changed("nodes") || c.Changed("quiet") {
		t.Errorf("Changed(nodes), Changed(quiet) = %v, %v, want true, false", c.Changed("nodes"), c.Changed("quiet"))
	}
}

func TestUsageErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	cmdtest.WriteFile(t, file, nil)
	for _, test := range []struct{ args, want string }{
		{"", "--prompt is missing, want --prompt FILE (prompt FILE)"},
		{"--prompt p --bogus", "unknown flag --bogus"},
		{"--prompt p --node 2", "unknown flag --node, did you mean --nodes?"},
		{"--prompt p -x", "unknown flag -x in -x"},
		{"--prompt p ---nodes", "bad flag ---nodes, want --name or --name=value"},
		{"--prompt p --nodes", "--nodes has no value, want N (workers to wait for, N)"},
		{"--prompt p stray", "stray argument stray, want flags only"},
		{"--prompt p --nodes 0", "--nodes 0: want at least 1"},
		{"--prompt p --nodes two", "--nodes two: want a whole number"},
		{"--prompt p --nodes 99999999999999999999", "--nodes 99999999999999999999: want a whole number"},
		{"--prompt p --nodes=", `--nodes "": want a whole number`},
		{"--prompt p --steps -1", "--steps -1: want at least 0"},
		{"--prompt p --seed -1", "--seed -1: want a whole number from 0 to 18446744073709551615"},
		{"--prompt p --lr 0", "--lr 0: want more than 0"},
		{"--prompt p --lr NaN", "--lr NaN: want a finite number"},
		{"--prompt p --lr 1e999", "--lr 1e999: want a finite number"},
		{"--prompt p --lr -Inf", "--lr -Inf: want a finite number"},
		{"--prompt p --warmup 1.5", "--warmup 1.5: want 0 to 1"},
		{"--prompt p --template T5", "--template T5: want dpt or t5"},
		{"--prompt p --log-level loud", "--log-level loud: want debug, info, warn or error"},
		{"--prompt p --wait 5", "--wait 5: want a time such as 500ms, 30s or 5m"},
		{"--prompt p --listen nowhere", "--listen nowhere: want HOST:PORT"},
		{"--prompt p --listen h:70000",
			"--listen h:70000: found port 70000, want HOST:PORT with a port from 0 to 65535"},
		{"--prompt p --peers b:2,c", "--peers b:2,c: want HOST:PORT"},
		{"--prompt p --local=maybe", "--local maybe: want true or false"},
		{"--prompt p --model " + file, "--model " + file + ": found a file, want a directory"},
		{"--prompt p --data " + dir, "--data " + dir + ": found a directory, want a file"},
		{"--prompt p --data " + dir + "/no", "--data " + dir + "/no: nothing there, want a file"},
		{"--prompt p --new " + dir, "--new " + dir + ": found a directory, want a file to write"},
		{"--prompt p --new " + dir + "/no/f", "--new " + dir + "/no/f: directory " + dir +
			"/no: nothing there, want a directory to write in"},
		{"--prompt p --new=", `--new "": want a file to write`},
		{"--prompt p --data " + file + "/no", "--data " + file + "/no: not a directory, want a file"},
	} {
		var out, errs bytes.Buffer
		run := func(_ context.Context, args []string, _ IO) error { return newSettings().command().Parse(args) }
		code := Run(t.Context(), "prog", run, strings.Fields(test.args), IO{Out: &out, Err: &errs})
		want := "prog sub: " + test.want + " (see prog sub --help)\n"
		if code != ExitUsage || errs.String() != want || out.Len() > 0 {
			t.Errorf("%s: exit %d, stderr %q, stdout %q; want exit 2, stderr %q",
				test.args, code, errs.String(), out.String(), want)
		}
	}
}

func TestRefusedValueIsNotStored(t *testing.T) {
	s := newSettings()
	if err := s.command().Parse([]string{"--prompt", "p", "--nodes", "-3"}); err == nil {
		t.Fatal("--nodes -3 was accepted")
	}
	if s.nodes != 4 {
		t.Errorf("nodes = %d after a refused value, want the default 4", s.nodes)
	}
}

func TestHelp(t *testing.T) {
	s := newSettings()
	for _, width := range []int{50, 72, 100} {
		help := s.command().Help(width)
		for line := range strings.Lines(help) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width {
				t.Errorf("width %d: %d columns in %q", width, n, line)
			}
		}
	}
	help := s.command().Help(100)
	at := -1
	for _, part := range []string{
		"Usage: prog sub --prompt FILE [flags]\n", "Does one thing",
		"\nJob:\n", "--nodes N", "(default 4)", "--template dpt|t5", "(default dpt)",
		"      --local                 start the workers too\n",
		"\nFiles:\n", "--model DIR", "(default: the embedded tiny model)", "--data FILE", "(default: none)",
		"--prompt FILE", "(required)",
		"\nNetwork:\n", "(default 127.0.0.1:7070)", "\nOutput:\n", "\nHelp:\n", "-h, --help", "One note.\n\nAnother.\n",
		"\nExample:\n  The usual:\n    prog sub --prompt p.safetensors\n",
	} {
		next := strings.Index(help[at+1:], part)
		if next < 0 {
			t.Fatalf("help lacks %q after byte %d:\n%s", part, at, help)
		}
		at += 1 + next
	}
}

func TestRunExitCodes(t *testing.T) {
	interrupted, cancel := context.WithCancelCause(t.Context())
	cancel(&Interrupted{Signal: syscall.SIGINT})
	fail := func(err error) RunFunc { return func(context.Context, []string, IO) error { return err } }
	parse := func(args ...string) RunFunc {
		return func(context.Context, []string, IO) error { return newSettings().command().Parse(args) }
	}
	for _, test := range []struct {
		name     string
		ctx      context.Context
		run      RunFunc
		code     int
		out, err string
	}{
		{"done", t.Context(), fail(nil), 0, "", ""},
		{"failed", t.Context(), fail(errors.Join(errors.New("one"), errors.New("two\n  three"))), 1, "",
			"prog: one; two; three\n"},
		{"wrapped usage", t.Context(), fail(fmt.Errorf("job: %w", &UsageError{Command: "prog sub", Message: "--a 1"})),
			2, "", "prog sub: job: --a 1 (see prog sub --help)\n"},
		{"interrupted", interrupted, fail(context.Canceled), 1, "", "prog: stopped by signal: interrupt\n"},
		{"interrupted, explained", interrupted, fail(fmt.Errorf("stopped at step 3: %w", context.Canceled)), 1, "",
			"prog: stopped at step 3: context canceled\n"},
		{"help", t.Context(), parse("--help"), 0, "Usage: prog sub", ""},
		{"short help", t.Context(), parse("-h"), 0, "Usage: prog sub", ""},
		{"help beats a later mistake", t.Context(), parse("--help", "--bogus"), 0, "Usage: prog sub", ""},
		{"version", t.Context(), parse("--version"), 0, "prog ", ""},
		{"other text", t.Context(), fail(InfoRequest(func(int) string { return "text" })), 0, "text", ""},
	} {
		var out, errs bytes.Buffer
		code := Run(test.ctx, "prog", test.run, nil, IO{Out: &out, Err: &errs})
		if code != test.code || !strings.HasPrefix(out.String(), test.out) || (test.out == "" && out.Len() > 0) ||
			errs.String() != test.err {
			t.Errorf("%s: exit %d, stdout %q, stderr %q; want %d, %q, %q",
				test.name, code, out.String(), errs.String(), test.code, test.out, test.err)
		}
	}
}

func TestFirstSignalCancels(t *testing.T) {
	var errs bytes.Buffer
	ctx, stop := WithSignals(t.Context(), "prog", &errs)
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	stop()
	var interrupted *Interrupted
	if !errors.As(context.Cause(ctx), &interrupted) || interrupted.Signal != syscall.SIGTERM {
		t.Errorf("cause %v, want Interrupted by SIGTERM", context.Cause(ctx))
	}
	if got := errs.String(); got != "prog: terminated: stopping; once more ends at once\n" {
		t.Errorf("stderr %q", got)
	}
}

// The second signal ends the process at once. The test starts its own binary again as that process.
func TestSecondSignalExits(t *testing.T) {
	const role = "CLI_TEST_SIGNALS"
	if os.Getenv(role) != "" {
		ctx, stop := WithSignals(context.Background(), "prog", os.Stderr)
		defer stop()
		for range 2 {
			if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			<-ctx.Done()
		}
		select {} // a program that does not stop when asked to
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSecondSignalExits$")
	cmd.Env = append(os.Environ(), role+"=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != ExitInterrupted || strings.Count(string(out), "stopping") != 1 {
		t.Errorf("after two interrupts: %v, output %q; want exit 130 and one notice", err, out)
	}
}

func TestLogger(t *testing.T) {
	for _, test := range []struct {
		log   Log
		lines int
	}{
		{DefaultLog(), 2}, {Log{Format: "json", Level: "debug"}, 3},
		{Log{Format: "json", Level: "debug", Quiet: true}, 1}, {Log{Format: "text", Level: "error"}, 0},
	} {
		var b bytes.Buffer
		log := test.log.Logger(&b)
		log.Debug("d")
		log.Info("i")
		log.Warn("w", "step", 3)
		if got := strings.Count(b.String(), "\n"); got != test.lines {
			t.Errorf("%+v: %d lines, want %d:\n%s", test.log, got, test.lines, b.String())
		}
		if test.log.Format == "json" {
			for line := range strings.Lines(b.String()) {
				if !json.Valid([]byte(line)) {
					t.Errorf("%+v: not JSON: %s", test.log, line)
				}
			}
		}
	}
}

func TestBuildVersion(t *testing.T) {
	version, commit := buildVersion(&debug.BuildInfo{
		Main:     debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}},
	})
	if version != "v1.2.3" || commit != "abc (modified)" {
		t.Errorf("version %q, commit %q", version, commit)
	}
	if got := Version(); len(strings.Fields(got)) < 2 || strings.Contains(got, "\n") {
		t.Errorf("Version() = %q, want a version and a commit on one line", got)
	}
	text := VersionText("prog", []string{"portable", "cuda"})
	for _, want := range []string{"prog ", "commit ", "go1.", "engines: portable, cuda\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("version text lacks %q:\n%s", want, text)
		}
	}
}

func TestWidth(t *testing.T) {
	for columns, want := range map[string]int{"": 100, "80": 80, "500": 100, "10": 50, "x": 100} {
		t.Setenv("COLUMNS", columns)
		if got := Width(&bytes.Buffer{}); got != want {
			t.Errorf("COLUMNS=%q: width %d, want %d", columns, got, want)
		}
	}
}
