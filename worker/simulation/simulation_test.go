package simulation

import (
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestFirst(t *testing.T) {
	began := time.Now()
	var rep *Report
	synctest.Test(t, func(t *testing.T) {
		var err error
		rep, err = Run(Undisturbed(false), Options{Scratch: "/dev/shm", Log: os.Stderr})
		if err != nil {
			t.Fatal(err)
		}
	})
	for _, l := range rep.Trace {
		t.Log(l)
	}
	t.Log(rep.Violations, rep.Took, time.Since(began))
}
