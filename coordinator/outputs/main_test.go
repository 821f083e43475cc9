package outputs

import (
	"os"
	"testing"

	"github.com/dptune/dpt/coordinator/internal/jobtest"
)

func TestMain(m *testing.M) { os.Exit(jobtest.Main(m)) }
