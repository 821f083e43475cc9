package world

import (
	"bytes"
	"strings"
	"testing"

	"github.com/dptune/dpt/dataset/internal/prng"
)

func TestSeedsDiffer(t *testing.T) {
	sizes := Sizes{Train: 4, Val: 2, Test: 2}
	a, err := Generate(1, sizes)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Generate(2, sizes)
	if err != nil {
		t.Fatal(err)
	}
	for name := range a {
		if len(a[name]) == 0 || bytes.Equal(a[name], b[name]) {
			t.Errorf("%s is empty or the same for two seeds", name)
		}
	}
}

// A world that is too small must say so rather than search for ever or repeat itself.
func TestExhaustedWorld(t *testing.T) {
	for _, k := range kinds {
		if k.dir != "WSC" {
			continue
		}
		_, err := k.file(prng.New("test"), 50_000, false, map[string]bool{})
		if err == nil || !strings.Contains(err.Error(), "found no new line") {
			t.Errorf("50,000 lines of %s give %v, want an error that says that there are no more", k.dir, err)
		}
	}
}
