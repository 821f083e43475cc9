package worker

import (
	"crypto/sha256"
	"encoding/binary"
	"math"

	"github.com/dptune/dpt/coordinator/ids"
)

// maxCacheBytes bounds a worker's cached contributions, in bytes. One to T5-Large's prompt takes
// 45 KB.
const maxCacheBytes = 64 << 20

// contribution is what one micro-batch adds to a step's sums.
type contribution struct {
	grad   []float32
	loss   float64 // sum over the target tokens
	tokens int     // target tokens
	cached bool    // a contributionCache holds it, so grad's memory must not be used again
}

// digest identifies the contribution of the micro-batch index by its bits.
func (c *contribution) digest(index int32) ids.Digest {
	h := sha256.New()
	b := make([]byte, 0, min(20+4*len(c.grad), digestBufferSize))
	b = binary.LittleEndian.AppendUint32(b, uint32(index))
	b = binary.LittleEndian.AppendUint64(b, uint64(c.tokens))
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(c.loss))
	for _, v := range c.grad {
		if len(b) == digestBufferSize {
			h.Write(b)
			b = b[:0]
		}
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	h.Write(b)
	return ids.Digest(h.Sum(nil))
}

// digestBufferSize bounds how many bytes of a contribution are encoded at a time.
const digestBufferSize = 64 << 10

// contributionCache keeps the contributions that this worker has computed for steps that are not
// committed yet, so that a step which is done again costs only what was lost. A contribution is a
// pure function of job, step, micro-batch and the state before the step, which are its key. The
// zero value is ready; one goroutine at a time uses it.
type contributionCache struct {
	job     string // whose contributions these are
	entries map[contributionKey]*contribution
	bytes   int // taken by the gradients in entries
}

// contributionKey identifies a contribution within a job.
type contributionKey struct {
	step  int64
	index int32      // of the micro-batch in the global batch
	state ids.Digest // of the trainer state before the step
}

// forJob empties the cache unless it holds this job's contributions, and returns it.
func (cache *contributionCache) forJob(job string) *contributionCache {
	if cache.job != job {
		*cache = contributionCache{job: job, entries: map[contributionKey]*contribution{}}
	}
	return cache
}

// get returns the contribution under k, nil if there is none.
func (cache *contributionCache) get(k contributionKey) *contribution { return cache.entries[k] }

// put keeps a contribution if there is room. To make room it drops those of earlier steps.
func (cache *contributionCache) put(k contributionKey, c *contribution) {
	size := 4 * len(c.grad)
	if cache.bytes+size > maxCacheBytes {
		cache.dropThrough(k.step - 1)
	}
	if _, there := cache.entries[k]; there || cache.bytes+size > maxCacheBytes {
		return
	}
	cache.entries[k], c.cached = c, true
	cache.bytes += size
}

// dropThrough drops the contributions to all steps up to and including the given one.
func (cache *contributionCache) dropThrough(step int64) {
	for k, c := range cache.entries {
		if k.step <= step {
			delete(cache.entries, k)
			cache.bytes -= 4 * len(c.grad)
		}
	}
}

// cachedSteps counts the steps for which a contribution is cached.
func (cache *contributionCache) cachedSteps() int {
	steps := map[int64]bool{}
	for k := range cache.entries {
		steps[k.step] = true
	}
	return len(steps)
}
