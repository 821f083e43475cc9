package worker_test

import (
	"os"
	"testing"

	"github.com/dptune/dpt/model/lab/tinyrandom"
)

// tinyModel is the directory of the random model that clusters train on.
var tinyModel string

func TestMain(m *testing.M) { os.Exit(tinyrandom.Main(m, &tinyModel)) }
