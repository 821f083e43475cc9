package worker_test

import (
	"os"
	"testing"

	"github.com/dptune/dpt/model/tiny"
)

// copyTiny writes the embedded model to dir.
func copyTiny(t *testing.T, dir string) {
	t.Helper()
	if err := os.CopyFS(dir, tiny.FS()); err != nil {
		t.Fatal(err)
	}
}
