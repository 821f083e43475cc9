package model

import (
	"os"
	"testing"

	"github.com/dptune/dpt/model/lab/tinyrandom"
)

// tinyModel is the directory of a model of a few layers.
var tinyModel string

func TestMain(m *testing.M) { os.Exit(tinyrandom.Main(m, &tinyModel)) }
