package prompt

import (
	"fmt"
	"math"

	"github.com/dptune/dpt/model/internal/gauss"
)

// The sources of a prompt's first numbers: elements of Method.Starts.
const (
	StartGaussian   = "gaussian"   // numbers from a normal distribution
	StartUniform    = "uniform"    // numbers from a uniform distribution
	StartVocabulary = "vocabulary" // rows that are embeddings of tokens drawn from the vocabulary
	StartLabels     = "labels"     // first rows that are embeddings of a task's labels
	StartText       = "text"       // rows that are embeddings of a text's tokens
	StartFile       = "file"       // a prompt file: see Config.Continue
)

// allStarts are the starts of a method that can start from any rows.
var allStarts = []string{StartGaussian, StartUniform, StartVocabulary, StartLabels, StartText, StartFile}

// Start determines the first parameters. They are made from the rows of a prompt
// (Rows, c×e) or, as far as rows do not determine them, drawn from a normal
// distribution (Std above 0) or a uniform one (Uniform above 0). Exactly one of
// Std and Uniform must be positive.
type Start struct {
	Seed    uint64
	Std     float64   // standard deviation of a normal distribution around 0
	Uniform float64   // a uniform distribution over [-Uniform, Uniform)
	Rows    []float32 // a row per virtual token
}

// Init returns the first parameters. Each tensor that is drawn has a stream of
// its own: its numbers depend only on the seed, the distribution and the
// tensor's name and size, and are the same on every platform.
//
//   - dpt: A and B are drawn, or factors of the product nearest to Rows.
//   - pt: the rows are drawn, or Rows.
//   - respt: the same, and the MLP as PyTorch starts its layers: weights and
//     biases uniform in ±1/√inputs, the norm's gain 1 and bias 0.
//   - svd: all drawn, Σ's diagonal as absolute values. Rows are an error.
func (c Config) Init(s Start) ([]float32, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	bad := func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) || v < 0 }
	if bad(s.Std) || bad(s.Uniform) || (s.Std > 0) == (s.Uniform > 0) {
		return nil, fmt.Errorf(
			"prompt: initial numbers of standard deviation %v and uniform in ±%v, want one positive and the other 0",
			s.Std, s.Uniform)
	}
	if s.Rows != nil && len(s.Rows) != c.Length*c.Dim {
		return nil, fmt.Errorf("prompt: %d numbers in the initial rows, want %d for %d virtual tokens of %d",
			len(s.Rows), c.Length*c.Dim, c.Length, c.Dim)
	}
	params := make([]float32, c.Size())
	if err := find(c.Method).start(c, s, c.split(params)); err != nil {
		return nil, fmt.Errorf("prompt: %w", err)
	}
	return params, nil
}

func (s Start) stream(tensor string) *gauss.Source { return gauss.New(s.Seed, "prompt/"+tensor) }

// draw fills a tensor from its stream.
func (s Start) draw(tensor string, out []float32) {
	if s.Uniform > 0 {
		s.stream(tensor).FillUniform(out, s.Uniform)
		return
	}
	s.stream(tensor).Fill(out, s.Std)
}

// rows fills a tensor of rows with Rows, or draws it.
func (s Start) rows(tensor string, out []float32) {
	if s.Rows != nil {
		copy(out, s.Rows)
		return
	}
	s.draw(tensor, out)
}
