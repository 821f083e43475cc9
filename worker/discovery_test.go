package worker

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/dptune/dpt/allreduce/dial"
	"github.com/dptune/dpt/coordinator/coordpb"
)

func TestDiscoveryOrder(t *testing.T) {
	const a, b, c, far = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "10.0.0.9:1"
	to := func(addr string) error {
		return coordpb.RedirectTo(&coordpb.Redirect{WorkerAddr: addr}, "go to %s", addr)
	}
	no := errors.New("refused")
	silent := fmt.Errorf("%w: stopped", errSilent)
	type round struct {
		answers []error // to each question; nil takes the worker and is the round's last
		asked   []string
	}
	for name, rounds := range map[string][]round{
		"all in turn":           {{[]error{no, no, no}, []string{a, b, c}}, {[]error{no, no, no}, []string{a, b, c}}},
		"a hint first":          {{[]error{to(c), nil}, []string{a, c}}},
		"a hint from afar":      {{[]error{to(far), no, no, no}, []string{a, far, b, c}}},
		"a hint that was asked": {{[]error{no, to(a), no}, []string{a, b, c}}},
		"on after the last":     {{[]error{nil}, []string{a}}, {[]error{no, nil}, []string{b, c}}},
		"silent ones last":      {{[]error{silent, nil}, []string{a, b}}, {[]error{no, no, nil}, []string{c, b, a}}},
		"heard again": {
			{[]error{silent, no, no}, []string{a, b, c}},
			{[]error{no, no, no}, []string{b, c, a}},
			{[]error{no, no, no}, []string{a, b, c}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &discovery{addrs: []string{a, b, c}, targets: dial.Dialer{}.Targets}
			for i, r := range rounds {
				var asked []string
				for replica := range f.candidates(t.Context()) {
					addr := replica.Name
					if len(asked) == len(r.answers) {
						t.Fatalf("round %d asks %s after %v", i, addr, asked)
					}
					err := r.answers[len(asked)]
					asked = append(asked, addr)
					f.recordAttempt(replica.Target, err)
					if err == nil {
						break
					}
				}
				if !slices.Equal(asked, r.asked) {
					t.Errorf("round %d asks %v, want %v", i, asked, r.asked)
				}
			}
		})
	}
}
