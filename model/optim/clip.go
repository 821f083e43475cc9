package optim

import "math"

// GlobalNorm returns the Euclidean norm of g, summed in float64 in the order of
// g. It is finite if all of g is.
func GlobalNorm(g []float32) float64 {
	var sum float64
	for _, x := range g {
		sum += float64(float64(x) * float64(x))
	}
	return math.Sqrt(sum)
}

// ClipGlobalNorm scales g so that its norm does not exceed max, as torch's
// clip_grad_norm_ does: by min(1, max/(norm+1e-6)). It returns the norm before
// clipping. A max of 0 disables clipping. It leaves a g that is not finite
// unchanged; AdamW.Update refuses it.
func ClipGlobalNorm(g []float32, max float64) (norm float64) {
	norm = GlobalNorm(g)
	if math.IsNaN(norm) || math.IsInf(norm, 0) || max <= 0 {
		return norm
	}
	if scale := float32(max / (norm + 1e-6)); scale < 1 {
		for i := range g {
			g[i] = float32(g[i] * scale)
		}
	}
	return norm
}
