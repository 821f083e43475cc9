package job_test

import (
	"bytes"
	"testing"

	"github.com/dptune/dpt/coordinator/job"
)

// FuzzParseRequest: whatever a client submits gives an error, or settings that are in range and
// survive their own encoding.
func FuzzParseRequest(f *testing.F) {
	s := job.DefaultSettings()
	good, err := s.Request()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	s.Patience, s.Shots, s.Task, s.Mixture = 3, 16, "rte,cb", "equal"
	if good, err = s.Request(); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte(`"LR":0.3`), []byte(`"LR":-1`), 1))
	f.Add(append(bytes.Clone(good), "{}"...))
	f.Add([]byte(`{"PromptLength":1e99}`))
	f.Add([]byte(`{"Sudo":1}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := job.ParseRequest(data)
		if err != nil {
			return
		}
		again, err := s.Request()
		if err != nil {
			t.Fatalf("%s is taken as %+v, which is out of range: %v", data, s, err)
		}
		if back, err := job.ParseRequest(again); err != nil || back != s {
			t.Errorf("%s is taken as %+v and comes back as %+v, %v", data, s, back, err)
		}
	})
}
