package optim

import (
	"fmt"
	"math"
)

// maxGrad is the largest magnitude of a gradient that Update accepts: its
// square still fits a float32.
const maxGrad = 1e18

// AdamW is Adam with decoupled weight decay (Loshchilov and Hutter, 2019), as
// torch.optim.AdamW computes it in float32.
type AdamW struct {
	LR           float64
	Beta1, Beta2 float64
	Eps          float64
	WeightDecay  float64
}

// NewAdamW returns an AdamW with torch's betas (0.9, 0.999) and epsilon 1e-8.
func NewAdamW(lr, weightDecay float64) AdamW {
	return AdamW{LR: lr, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: weightDecay}
}

// Validate checks that the settings are in the ranges that torch allows.
func (a AdamW) Validate() error {
	for _, s := range []struct {
		name  string
		value float64
		limit float64
	}{
		{"learning rate", a.LR, math.Inf(1)},
		{"beta1", a.Beta1, 1},
		{"beta2", a.Beta2, 1},
		{"epsilon", a.Eps, math.Inf(1)},
		{"weight decay", a.WeightDecay, math.Inf(1)},
	} {
		if !(s.value >= 0 && s.value < s.limit) {
			return fmt.Errorf("AdamW: %s is %v, want a number in [0, %v)", s.name, s.value, s.limit)
		}
	}
	return nil
}

// Update takes one step on s with the gradient grad, which is as long as
// s.Params, at the learning rate LR·factor. It fails, without touching s, on
// settings out of range, on lengths that differ, and on a gradient that is not
// finite or is so large that its square is not. If the parameters themselves
// leave float32's range it fails too, and s must not be used any more.
func (a AdamW) Update(s *State, grad []float32, factor float64) error {
	if err := a.Validate(); err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return fmt.Errorf("AdamW: %w", err)
	}
	if len(grad) != len(s.Params) {
		return fmt.Errorf("AdamW: gradient of %d numbers, want %d, one for each parameter", len(grad), len(s.Params))
	}
	if !(factor >= 0 && factor < math.Inf(1)) {
		return fmt.Errorf("AdamW: learning rate factor is %v, want a number in [0, +Inf)", factor)
	}
	for i, g := range grad {
		if !(g >= -maxGrad && g <= maxGrad) {
			return fmt.Errorf("AdamW: gradient of parameter %d is %v, want a finite number of magnitude at most %g",
				i, g, float64(maxGrad))
		}
	}

	s.Step++
	lr := float64(a.LR * factor)
	correction1 := 1 - power(a.Beta1, s.Step)
	correction2 := 1 - power(a.Beta2, s.Step)
	// torch computes these in float64 and rounds them when they meet a tensor.
	decay := float32(1 - float64(lr*a.WeightDecay))
	weight1 := float32(1 - a.Beta1)
	beta2, weight2 := float32(a.Beta2), float32(1-a.Beta2)
	stepSize := float32(-lr / correction1)
	root2 := float32(math.Sqrt(correction2))
	eps := float32(a.Eps)

	params, m, v := s.Params, s.M[:len(grad)], s.V[:len(grad)]
	for i, g := range grad {
		m[i] += float32(weight1 * (g - m[i]))
		v[i] = float32(beta2*v[i]) + float32(float32(weight2*g)*g)
		denom := float32(float32(math.Sqrt(float64(v[i])))/root2) + eps
		p := float32(decay*params[i]) + float32(float32(stepSize*m[i])/denom)
		if p-p != 0 { // infinite or not a number
			return fmt.Errorf(
				"AdamW: parameter %d became %v at step %d (learning rate %g, epsilon %g): training diverged",
				i, p, s.Step, lr, a.Eps)
		}
		params[i] = p
	}
	return nil
}

// power returns x^n by repeated squaring: products alone, which round alike
// everywhere, unlike math.Pow.
func power(x float64, n int64) float64 {
	p := 1.0
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			p = float64(p * x)
		}
		x = float64(x * x)
	}
	return p
}
