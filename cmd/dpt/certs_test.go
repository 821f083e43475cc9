package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestCerts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	out := mustRun(t, nil, "certs", "--out", dir, "trainer.example,10.0.0.1", "10.0.0.2", "--days", "7")
	for _, file := range []string{
		"ca.pem: CA ", "ca-key.pem: key of the CA ",
		"trainer.example.pem: certificate for trainer.example, 10.0.0.1, valid until ",
		"trainer.example-key.pem: key ", "10.0.0.2.pem: certificate ", "10.0.0.2-key.pem: key ",
	} {
		if !strings.Contains(out, "wrote "+filepath.Join(dir, file)) {
			t.Errorf("the output lacks %q:\n%s", file, out)
		}
	}
	if n := strings.Count(out, "\n"); n != 6 {
		t.Errorf("%d lines of output, want one per file", n)
	}
	if out := mustRun(t, nil, "certs", "--out", dir, "b"); !strings.HasPrefix(out,
		"kept "+filepath.Join(dir, "ca.pem")) {
		t.Errorf("a second machine does not keep the CA:\n%s", out)
	}
	code, _, errs := dpt(t, nil, "certs", "--out", dir, "b")
	if code != 1 || !strings.Contains(errs, "b.pem is there already, want --force") {
		t.Errorf("again: exit %d, stderr %q", code, errs)
	}
	mustRun(t, nil, "certs", "--out", dir, "b", "--force")
}
