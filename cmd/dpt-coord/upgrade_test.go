package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dptune/dpt/cmd/internal/cmdtest"
	"github.com/dptune/dpt/cmd/internal/localworkers"
	"github.com/dptune/dpt/coordinator/coordpb"
)

// otherBuild builds dpt-coord, which is a worker too, with another version and, unless protocol is
// this build's, another protocol.
func otherBuild(t *testing.T, version string, protocol int) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "dpt-coord")
	args := []string{"build", "-o", path,
		"-ldflags", "-s -w -X github.com/dptune/dpt/cmd/internal/cli.version=" + version}
	if protocol != coordpb.ProtocolVersion {
		file, err := filepath.Abs("../../coordinator/coordpb/doc.go")
		if err != nil {
			t.Fatal(err)
		}
		here := fmt.Appendf(nil, "const ProtocolVersion = %d", coordpb.ProtocolVersion)
		source := cmdtest.ReadFile(t, file)
		if bytes.Count(source, here) != 1 {
			t.Fatalf("%s: want %q in it once", file, here)
		}
		other, overlay := filepath.Join(dir, "doc.go"), filepath.Join(dir, "overlay.json")
		cmdtest.WriteFile(t, other,
			bytes.Replace(source, here, fmt.Appendf(nil, "const ProtocolVersion = %d", protocol), 1))
		list, err := json.Marshal(map[string]map[string]string{"Replace": {file: other}})
		if err != nil {
			t.Fatal(err)
		}
		cmdtest.WriteFile(t, overlay, list)
		args = append(args, "-overlay", overlay)
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return path
}

// awaitLog waits until the log of a process holds all texts.
func (c *chaos) awaitLog(name string, all ...string) {
	c.t.Helper()
	var log string
	for range 6000 {
		c.mu.Lock()
		log = string(c.logs[name])
		c.mu.Unlock()
		missing := false
		for _, want := range all {
			missing = missing || !strings.Contains(log, want)
		}
		if !missing {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.t.Fatalf("%s does not say %q:\n%s", name, all, log)
}

// A newer build takes over replica by replica and worker by worker. A process with another protocol
// is refused, and both sides log the two versions.
func TestRollingUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("two more builds and half a minute of upgrades: skipped with -short")
	}
	t.Parallel()
	const newer, foreign = "v99.1.0", "v99.2.0"
	ours, theirs := coordpb.ProtocolVersion, coordpb.ProtocolVersion+1
	next, other := otherBuild(t, newer, ours), otherBuild(t, foreign, theirs)
	c := newChaos(t, 200)
	// Where one of four workers is missing the job waits, so that it does not end before the
	// upgrade.
	c.flags = []string{"--min-nodes", fmt.Sprint(chaosWorkers)}
	c.dir = filepath.Join(c.dir, "upgrade")
	c.cluster()
	defer func() {
		for _, v := range c.all() {
			c.signal(v, syscall.SIGKILL)
		}
	}()
	if !c.awaitWhole() {
		t.Fatal("the job ended before the upgrade")
	}
	stop := func(v *victim) {
		c.signal(v, syscall.SIGTERM)
		select {
		case <-v.gone:
		case <-time.After(time.Minute):
			c.fatal("%s does not stop", v.name)
		}
	}

	t.Log("a worker of another protocol")
	absent := c.workers[0]
	stop(absent)
	addr := absent.args[1]
	stranger := &victim{name: "stranger", program: other,
		args: append([]string{localworkers.Command}, "--coord", addr, "--id", "stranger")}
	c.start(stranger)
	<-stranger.gone
	want := fmt.Sprintf("worker stranger (version %s ", foreign)
	speaks := fmt.Sprintf(") speaks protocol %d, this coordinator (version ", theirs)
	if code := stranger.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("the worker of another protocol ended with exit code %d, want 1", code)
	}
	c.awaitLog("stranger", want, speaks, fmt.Sprintf(") speaks %d", ours))
	c.awaitLog(c.leads().name, "worker refused", want, speaks, fmt.Sprintf(") speaks %d", ours))

	t.Log("a replica of another protocol")
	replica := c.follower()
	stop(replica)
	replica.program = other
	c.start(replica)
	c.awaitLog(replica.name, fmt.Sprintf("the replica speaks protocol %d, this one speaks %d", ours, theirs))
	c.awaitLog(c.leads().name, fmt.Sprintf("the replica speaks protocol %d, this one speaks %d", theirs, ours))
	stop(replica)
	replica.program = filepath.Join(programs, "dpt-coord")
	c.start(replica)
	c.start(absent)

	t.Log("the newer build, one after another")
	for i, v := range c.workers {
		if !c.awaitWhole() {
			t.Fatal("the job ended before the upgrade")
		}
		hurt := []*victim{v}
		if i < len(chaosIDs) {
			hurt = append(hurt, c.coords[chaosIDs[i]])
		}
		for _, v := range hurt {
			_ = v.cmd.Process.Signal(syscall.SIGTERM) // at once, in the midst of a step
		}
		for _, v := range hurt {
			stop(v)
			v.program = next
			if v == c.workers[i] {
				v.args = append([]string{localworkers.Command}, v.args...)
			}
			c.start(v)
		}
	}
	for _, id := range chaosIDs {
		c.mustHaveAll(id)
		var job struct {
			Version string `json:"version"`
		}
		if err := json.Unmarshal(cmdtest.ReadFile(t, c.dir, id, "job.json"), &job); err != nil ||
			!strings.HasPrefix(job.Version, newer+" ") {
			t.Errorf("replica %s: job.json was written by version %q (%v), want %s", id, job.Version, err, newer)
		}
	}
}
