package coordinator

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// BenchmarkWorkers measures what a step costs the leader by the number of workers, with a
// micro-batch of one example of about 100 tokens for each and T5-Large's trainer state: planning,
// dealing, a plan for each worker, their reports, comparing digests, and the commit to a log on
// disk. All of that is the controller's own code; only the network is missing (see fleet).
//
// cpu-ms is the processor time of a step, with the log's part and the garbage collector's. wire-ms
// is that of encoding the plans, which the sessions' goroutines do at the same time. heap-MB is the
// memory in use after the last step, with everything that the workers' sessions hold here except
// gRPC's buffers.
func BenchmarkWorkers(b *testing.B) {
	for _, workers := range []int{125, 250, 500, 1000, 2000} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) { benchWorkers(b, workers) })
	}
}

func benchWorkers(b *testing.B, workers int) {
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f := newFleet(b, workers)
	f.runStep() // plans are made ahead, so the first step is not like the others
	var wire time.Duration
	began := processTime(b)
	for b.Loop() {
		wire += f.runStep()
	}
	cpu := processTime(b) - began - wire
	var after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(cpu.Seconds()*1e3/float64(b.N), "cpu-ms")
	b.ReportMetric(wire.Seconds()*1e3/float64(b.N), "wire-ms")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "heap-MB")
	runtime.KeepAlive(f)
}
