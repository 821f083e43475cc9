package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/cmd/internal/device"
	"github.com/dptune/dpt/model"
)

// loadReport is what loading a model took, as --json prints it: medians over the loads. Digest and
// packing run at the same time.
type loadReport struct {
	Model          string  `json:"model"`
	Engine         string  `json:"engine"`
	Loads          int     `json:"loads"`
	MappingSeconds float64 `json:"mapping_seconds"`
	DigestSeconds  float64 `json:"digest_seconds"`
	PackingSeconds float64 `json:"packing_seconds"`
	WholeSeconds   float64 `json:"whole_seconds"`
	FastestSeconds float64 `json:"fastest_whole_seconds"`
	CPUSeconds     float64 `json:"cpu_seconds,omitempty"` // of all cores together, kernel included
	PeakBytes      int64   `json:"peak_resident_bytes,omitempty"`
}

// runBenchLoad measures opening a model.
func runBenchLoad(ctx context.Context, args []string, std cli.IO) error {
	var dir string
	var flags device.Flags
	loads, asJSON := 3, false
	cmd := cli.NewCommand("dpt bench load", "--model DIR",
		"Measures opening a model: mapping its files, the digest of its weights, and packing them for the engine, "+
			"which run at the same time. A first load, which does not count, brings the files into the page cache.")
	cmd.Examples = []cli.Example{{Command: "dpt bench load --model ./t5-base --dtype bf16"}}
	cmd.Group("Model").String(&dir, "model", "the checkpoint in `DIR`", cli.ExistingDir).
		DefaultText("the embedded model")
	flags.Bind(cmd.Group("Engine"))
	cmd.Group("Measurement").Int(&loads, "loads", "load `N` times", cli.AtLeast(1))
	cmd.Group("Output").Bool(&asJSON, "json", "print one JSON object rather than a table")
	cmd.Engines = model.Engines()
	if err := cmd.Parse(args); err != nil {
		return err
	}
	options, err := flags.Options(cmd)
	if err != nil {
		return err
	}
	report, err := measureLoads(ctx, dir, loads, options)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(std.Out).Encode(report)
	}
	_, err = io.WriteString(std.Out, report.text())
	return err
}

// measureLoads opens the model in dir once more than it counts: the first load fills the page
// cache.
func measureLoads(ctx context.Context, dir string, loads int, options model.Options) (*loadReport, error) {
	r := &loadReport{Loads: loads}
	var mapping, digest, packing, whole, cpu []float64
	for i := range loads + 1 {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if i == 1 {
			resetPeak()
		}
		before := cpuTime()
		b, err := model.Open(dir, options)
		if err != nil {
			return nil, err
		}
		used, took := cpuTime()-before, b.Loading()
		r.Model, r.Engine = b.Name(), b.EngineName()
		if err := b.Close(); err != nil {
			return nil, err
		}
		if i == 0 {
			continue
		}
		cpu, whole = append(cpu, used.Seconds()), append(whole, took.Whole.Seconds())
		mapping = append(mapping, took.Mapping.Seconds())
		digest = append(digest, took.Digest.Seconds())
		packing = append(packing, took.Packing.Seconds())
	}
	r.PeakBytes = peakResident()
	r.FastestSeconds = slices.Min(whole)
	r.MappingSeconds, r.DigestSeconds, r.PackingSeconds = median(mapping), median(digest), median(packing)
	r.WholeSeconds, r.CPUSeconds = median(whole), median(cpu)
	return r, nil
}

// median is the upper median where the number of values is even.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// text is the report as a table.
func (r *loadReport) text() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-22s %s\n", name, fmt.Sprintf(format, args...))
	}
	duration := func(s float64) time.Duration {
		return time.Duration(s * float64(time.Second)).Round(10 * time.Microsecond)
	}
	seconds := func(name string, s float64, what string) { line(name, "%v%s", duration(s), what) }
	line("model", "%s", r.Model)
	line("engine", "%s", r.Engine)
	line("measured", "%s, medians; the files are in the page cache", plural(r.Loads, "load", "loads"))
	seconds("mapping", r.MappingSeconds, "")
	seconds("digest", r.DigestSeconds, ", beside packing")
	seconds("packing", r.PackingSeconds, "")
	seconds("whole", r.WholeSeconds, fmt.Sprintf("; fastest %v", duration(r.FastestSeconds)))
	if r.CPUSeconds > 0 {
		seconds("CPU time", r.CPUSeconds, ", of all cores together")
	}
	if r.PeakBytes > 0 {
		line("peak memory", "%.0f MiB resident, the mapped files included", float64(r.PeakBytes)/(1<<20))
	}
	return b.String()
}
