package worker

import (
	"crypto/sha256"
	"encoding/binary"
	"math"

	"github.com/dptune/dpt/coordinator/ids"
)

// maxPartials bounds the memory of a worker's kept contributions, in bytes: those of T5-Large's prompt take 45 KB each.
const maxPartials = 64 << 20

// contribution is what one micro-batch adds to a step's sums.
type contribution struct {
	grad   []float32
	loss   float64 // sum over the target tokens
	tokens int
	kept   bool
}

// digest identifies the contribution by its bits.
func (c *contribution) digest(index int32) ids.Digest {
	h := sha256.New()
	b := make([]byte, 0, min(20+4*len(c.grad), digestPiece))
	b = binary.LittleEndian.AppendUint32(b, uint32(index))
	b = binary.LittleEndian.AppendUint64(b, uint64(c.tokens))
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(c.loss))
	for _, v := range c.grad {
		if len(b) == digestPiece {
			h.Write(b)
			b = b[:0]
		}
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	h.Write(b)
	return ids.Digest(h.Sum(nil))
}

// digestPiece is how many bytes of a contribution are encoded at a time.
const digestPiece = 64 << 10

// partials keeps what this worker has computed for steps that are not committed yet, so that a step which is done again
// costs only what was lost. A contribution is a pure function of job, step, micro-batch and the state before the step, and
// is kept under these. The zero value is ready; one goroutine at a time uses it.
type partials struct {
	job   string
	kept  map[partialKey]*contribution
	bytes int
}

type partialKey struct {
	step  int64
	index int32
	state ids.Digest // before the step
}

// of makes p hold contributions to a job: those to another are worth nothing to it.
func (p *partials) of(job string) *partials {
	if p.job != job {
		*p = partials{job: job, kept: map[partialKey]*contribution{}}
	}
	return p
}

func (p *partials) get(k partialKey) *contribution { return p.kept[k] }

// keep keeps a contribution if there is room, for which those of earlier steps go.
func (p *partials) keep(k partialKey, c *contribution) {
	size := 4 * len(c.grad)
	if p.bytes+size > maxPartials {
		p.forget(k.step - 1)
	}
	if _, there := p.kept[k]; there || p.bytes+size > maxPartials {
		return
	}
	p.kept[k], c.kept = c, true
	p.bytes += size
}

// forget drops what was kept for the steps up to one.
func (p *partials) forget(step int64) {
	for k, c := range p.kept {
		if k.step <= step {
			delete(p.kept, k)
			p.bytes -= 4 * len(c.grad)
		}
	}
}

// steps is of how many steps something is kept.
func (p *partials) steps() int {
	steps := map[int64]bool{}
	for k := range p.kept {
		steps[k.step] = true
	}
	return len(steps)
}
