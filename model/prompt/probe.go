package prompt

import "fmt"

// Probe is the result of the rank probe on a state (figures 3 and 9 of the paper).
type Probe struct {
	Positive int `json:"positive"` // diagonal entries of Σ above 0
	Negative int `json:"negative"` // below 0
	Rank     int `json:"rank"`     // of P
}

// Probed reports whether evaluations look at the parameters of c's method with ProbeOf.
func (c Config) Probed() bool {
	m := find(c.Method)
	return m != nil && m.probe != nil
}

// ProbeOf looks at the parameters of a method that is probed. P's rank is the number of
// singular values above the largest times max(e,c) times float32's epsilon, as
// NumPy and PyTorch count by default.
func ProbeOf(c Config, params []float32) (Probe, error) {
	if !c.Probed() {
		return Probe{}, fmt.Errorf("prompt: probe of method %q, want a method that is probed", c.Method)
	}
	rows, err := Embeddings(c, params)
	if err != nil {
		return Probe{}, err
	}
	return find(c.Method).probe(c, c.split(params), rows), nil
}
