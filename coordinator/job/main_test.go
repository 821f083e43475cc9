package job

import (
	"os"
	"testing"

	"github.com/dptune/dpt/model/lab/tinyrandom"
)

// tinyModel is the directory of the model that jobs are about.
var tinyModel string

func TestMain(m *testing.M) { os.Exit(tinyrandom.Main(m, &tinyModel)) }

// testSettings are the defaults, with a small random model.
func testSettings() Settings {
	s := DefaultSettings()
	s.Model = tinyModel
	return s
}
