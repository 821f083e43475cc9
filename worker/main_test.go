package worker_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/dptune/dpt/dataset/mini"
	"github.com/dptune/dpt/model/lab/tinyrandom"
)

var (
	tinyModel string // directory of the random model that clusters train on
	smallData string // directory of the embedded data with fewer examples, above all to evaluate on
)

// TestMain sets a proxy that nobody serves: no connection may use it.
func TestMain(m *testing.M) {
	os.Setenv("HTTPS_PROXY", "http://127.0.0.1:9")
	os.Unsetenv("NO_PROXY")
	dir, err := os.MkdirTemp("", "small-data-")
	if err == nil {
		err = os.CopyFS(dir, mini.New(mini.Seed, mini.Sizes{Train: 512, Val: 64, Test: 1}))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "write the data for tests:", err)
		os.Exit(1)
	}
	smallData = dir
	code := tinyrandom.Main(m, &tinyModel)
	os.RemoveAll(dir)
	os.Exit(code)
}
