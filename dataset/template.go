package dataset

import "fmt"

// Template determines how an example becomes text. The package documentation shows both templates
// for each task.
type Template string

const (
	// DPT is the text and the label digits of the code of the paper "Decomposed Prompt Tuning via
	// Low-Rank Reparameterization". It is the default.
	DPT Template = "dpt"
	// T5 is the text and the label words of the T5 code's super_glue_*_v102 tasks.
	T5 Template = "t5"
)

// ParseTemplate returns the template of a name; "" is the default.
func ParseTemplate(name string) (Template, error) {
	switch Template(name) {
	case "", DPT:
		return DPT, nil
	case T5:
		return T5, nil
	}
	return "", fmt.Errorf("unknown template %q, want %q or %q", name, DPT, T5)
}
