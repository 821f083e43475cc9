// Package jobtest makes jobs for tests: the default settings, with a small random model.
package jobtest

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/model/lab/tinyrandom"
)

// Model is the directory of the model while Main runs.
var Model string

// Main is for the TestMain of a package that uses the others. It runs the tests and returns the
// exit status.
func Main(m *testing.M) int { return tinyrandom.Main(m, &Model) }

// Settings are the defaults, with Model.
func Settings() job.Settings {
	s := job.DefaultSettings()
	s.Model = Model
	return s
}

// RTE returns a data directory, for Settings.Data, whose only file is RTE's training split with the
// given lines.
func RTE(t testing.TB, lines ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "RTE"), 0o755); err != nil {
		t.Fatal(err)
	}
	data := strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(dir, "RTE", "train.jsonl"), []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Load loads the job of Settings after a change.
func Load(t testing.TB, change func(s *job.Settings)) *job.Job {
	t.Helper()
	j, err := TryLoad(change)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// TryLoad is Load for a change that may be refused.
func TryLoad(change func(s *job.Settings)) (*job.Job, error) {
	s := Settings()
	change(&s)
	return job.Load(s, slog.New(slog.DiscardHandler))
}
