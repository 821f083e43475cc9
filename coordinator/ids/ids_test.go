package ids

import (
	"strings"
	"testing"
)

func TestParseDigest(t *testing.T) {
	d := Sum([]byte("x"))
	if got, err := ParseDigest(d.String()); err != nil || got != d {
		t.Errorf("%v comes back as %v (%v)", d, got, err)
	}
	for _, bad := range []string{"", d.String()[2:], strings.ToUpper(d.String()), d.String() + ".tmp", "no digest"} {
		if _, err := ParseDigest(bad); err == nil {
			t.Errorf("%q is taken for a digest", bad)
		}
	}
}
