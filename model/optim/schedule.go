package optim

// Linear is a learning rate that rises linearly from 0 over Warmup steps and
// then falls linearly to 0 at step Total: Transformers'
// get_linear_schedule_with_warmup.
type Linear struct {
	Warmup int64
	Total  int64
}

// Factor returns the factor of the learning rate at the given step, counted
// from 0. The first step's factor is 0 if there is any warm-up.
func (l Linear) Factor(step int64) float64 {
	if step < l.Warmup {
		return float64(step) / float64(max(1, l.Warmup))
	}
	return max(0, float64(l.Total-step)/float64(max(1, l.Total-l.Warmup)))
}

// WarmupSteps reads a warm-up setting as the DPT authors' code does: above 1 it
// is a number of steps, else a share of total. Fractions of a step are dropped.
func WarmupSteps(w float64, total int64) int64 {
	if w > 1 {
		return int64(w)
	}
	return int64(float64(w * float64(total)))
}
