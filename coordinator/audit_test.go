package coordinator

import (
	"math"
	"testing"

	"github.com/dptune/dpt/coordinator/ids"
)

func TestAuditedIsAPureShare(t *testing.T) {
	const steps, micros = 400, 8
	for _, share := range []float64{0, 0.05, 0.5, 1} {
		n, differ := 0, 0
		for step := ids.Step(1); step <= steps; step++ {
			for i := range micros {
				a := isAudited(42, step, i, share)
				if a != isAudited(42, step, i, share) {
					t.Fatal("another answer at the second call")
				}
				if a {
					n++
				}
				if a != isAudited(43, step, i, share) {
					differ++
				}
			}
		}
		mean, spread := share*steps*micros, math.Sqrt(share*(1-share)*steps*micros)
		if math.Abs(float64(n)-mean) > 4*spread {
			t.Errorf("share %v: %d of %d micro-batches, want about %v", share, n, steps*micros, mean)
		}
		if share > 0 && share < 1 && differ == 0 {
			t.Errorf("share %v: another seed audits the same micro-batches", share)
		}
	}
}

func TestVerdict(t *testing.T) {
	a, b, c := claim{digest: ids.Digest{1}}, claim{digest: ids.Digest{2}}, claim{digest: ids.Digest{3}}
	fails := claim{fails: true}
	for name, k := range map[string]struct {
		claims  []claim
		right   claim
		decided bool
	}{
		"one decides nothing":        {[]claim{a}, claim{}, false},
		"two differ":                 {[]claim{a, b}, claim{}, false},
		"a third decides":            {[]claim{a, b, b}, b, true},
		"three differ":               {[]claim{a, b, c}, claim{}, false},
		"a fourth decides":           {[]claim{a, b, c, a}, a, true},
		"two against two":            {[]claim{a, b, b, a}, claim{}, false},
		"three against two":          {[]claim{a, b, b, a, b}, b, true},
		"it fails for two":           {[]claim{fails, fails}, fails, true},
		"it fails for one":           {[]claim{fails, a}, claim{}, false},
		"it fails for one of three":  {[]claim{fails, a, a}, a, true},
		"it fails for two and works": {[]claim{fails, a, fails}, fails, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := &dispute{claims: map[string]claim{}, names: map[string]string{}}
			for i, claim := range k.claims {
				s := &session{id: string(rune('a' + i))}
				d.add(s, claim)
				d.add(s, claim) // twice counts once
			}
			if right, decided := d.verdict(); decided != k.decided || right != k.right {
				t.Errorf("%v, %v; want %v, %v", right, decided, k.right, k.decided)
			}
		})
	}
}
