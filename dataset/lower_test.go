package dataset

import "testing"

// TestPythonLower: the results are those of Python's str.lower.
func TestPythonLower(t *testing.T) {
	for s, want := range map[string]string{
		"":            "",
		"Σ":           "σ",
		"ΟΔΟΣ":        "οδος",
		"ΟΔΟΣ ΟΔΟΣ.":  "οδος οδος.",
		"ΣΑΣ":         "σας",
		"ΑΣ'Α":        "ασ'α",
		"ΑΣ'":         "ας'",
		"Α'Σ":         "α'ς",
		"1Σ":          "1σ",
		"ΑΣ1":         "ας1",
		"A\u0301Σ":    "a\u0301ς",
		"\u0130Σ":     "i\u0307ς",
		"\u0130stanb": "i\u0307stanb",
	} {
		if got := pythonLower(s); got != want {
			t.Errorf("%q becomes %q, want %q", s, got, want)
		}
	}
}
