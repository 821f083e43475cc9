package t5

import (
	"math"

	"github.com/dptune/dpt/model/engine"
)

// bucket maps the distance of a key from its query (key position minus query position) to a row of
// the trained bias table: exact for small distances, logarithmic up to maxDistance, one bucket for
// all beyond. In the decoder (not bidirectional) positive distances do not occur. It computes in
// float32 where T5Attention._relative_position_bucket does, because the bounds between buckets
// depend on it.
func bucket(distance int, bidirectional bool, buckets, maxDistance int) int {
	first := 0
	if bidirectional {
		buckets /= 2
		if distance > 0 {
			first = buckets
		}
		distance = max(distance, -distance)
	} else {
		distance = max(-distance, 0)
	}
	exact := buckets / 2
	if distance < exact {
		return first + distance
	}
	l := float32(math.Log(float64(float32(distance) / float32(exact))))
	l /= float32(math.Log(float64(maxDistance) / float64(exact)))
	l *= float32(buckets - exact)
	return first + min(exact+int(l), buckets-1)
}

// RelativeBucket is the row of a table of relative attention biases for a key's distance from its
// query (key position minus query position), in the encoder (bidirectional) or the decoder.
func (c Config) RelativeBucket(distance int, bidirectional bool) int {
	return bucket(distance, bidirectional, c.RelativeBuckets, c.RelativeDistance)
}

// distances is the range of distances for each of which a stack's bias has a value; the values at
// its ends also hold beyond them.
func (c Config) distances(bidirectional bool) (lo, hi int) {
	if bidirectional {
		return -c.RelativeDistance, c.RelativeDistance
	}
	return -c.RelativeDistance, 0
}

// spreadBias spreads the trained table [buckets, heads] over distances: [heads, hi-lo+1].
func (c Config) spreadBias(table []float32, bidirectional bool) []float32 {
	lo, hi := c.distances(bidirectional)
	span := hi - lo + 1
	values := make([]float32, c.NumHeads*span)
	for d := lo; d <= hi; d++ {
		b := c.RelativeBucket(d, bidirectional)
		for h := range c.NumHeads {
			values[h*span+d-lo] = table[b*c.NumHeads+h]
		}
	}
	return values
}

func newBias(eng engine.Engine, cfg Config, table []float32, bidirectional bool) (engine.Bias, error) {
	lo, hi := cfg.distances(bidirectional)
	return eng.NewBias(cfg.NumHeads, lo, hi, cfg.spreadBias(table, bidirectional))
}
