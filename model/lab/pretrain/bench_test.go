package pretrain

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/dptune/dpt/model/engine"
	"github.com/dptune/dpt/model/engine/portable"
	"github.com/dptune/dpt/model/t5"
)

// benchEngines are the engines of BenchmarkStep.
var benchEngines = map[string]func() (engine.Engine, error){
	"portable": func() (engine.Engine, error) { return portable.New[float32](1), nil },
}

// BenchmarkStep computes a step's gradient by one worker at shapes of a small model. It reports
// source and target tokens per second of CPU time.
func BenchmarkStep(b *testing.B) {
	for _, shape := range []struct{ d, ff, kv, heads, enc, dec int }{
		{192, 448, 32, 6, 4, 2}, {256, 512, 64, 4, 3, 2}, {160, 384, 32, 5, 6, 2},
	} {
		for name, open := range benchEngines {
			b.Run(fmt.Sprintf("d%d-ff%d-kv%d-%d+%d/%s", shape.d, shape.ff, shape.kv, shape.enc, shape.dec, name),
				func(b *testing.B) {
					s := DefaultSettings()
					c := &s.Model
					c.DModel, c.DFF, c.DKV, c.NumHeads = shape.d, shape.ff, shape.kv, shape.heads
					c.NumLayers, c.NumDecoderLayers = shape.enc, shape.dec
					s.Micro = 1
					weights := initial(s)
					w, err := newWorkers(s, 1, open, weights)
					if err != nil {
						b.Fatal(err)
					}
					defer w.close()
					r := newRandom(1, 1)
					var bt batch
					for range 12 {
						p := t5.Pair{Source: make([]int32, 110+r.below(20)), Target: make([]int32, 3+r.below(14))}
						for _, ids := range [][]int32{p.Source, p.Target} {
							for i := range ids {
								ids[i] = int32(r.below(300))
							}
						}
						bt.micro = [][]t5.Pair{append(append([]t5.Pair(nil), pairsOf(bt)...), p)}
						bt.tokens += len(p.Source) + len(p.Target)
						bt.target += len(p.Target)
					}
					before := cpuSeconds()
					b.ResetTimer()
					for range b.N {
						if err := w.set(weights); err != nil {
							b.Fatal(err)
						}
						if _, err := w.gradient(bt); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(bt.tokens*b.N)/(cpuSeconds()-before), "tokens/cpu-s")
					b.ReportMetric(float64(len(weights))/1e6, "Mweights")
				})
		}
	}
}

// cpuSeconds is the CPU time of this process, which depends less on other load than wall-clock time
// does.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func pairsOf(b batch) []t5.Pair {
	if len(b.micro) == 0 {
		return nil
	}
	return b.micro[0]
}
