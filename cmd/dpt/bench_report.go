package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/dptune/dpt/model"
)

// benchReport is the result of a measurement, as --json prints it. Rates are those of the median
// pass. Tokens are source and target tokens: padding counts where sources are padded, prompt rows
// do not.
type benchReport struct {
	Model   string   `json:"model"`
	Engine  string   `json:"engine"`
	What    string   `json:"what"`
	Without []string `json:"without"`

	Passes            int     `json:"passes"`
	Examples          int     `json:"examples"` // of a pass
	Tokens            int     `json:"tokens"`
	PromptTokens      int     `json:"prompt_tokens"` // of an example
	PassSeconds       float64 `json:"pass_seconds"`
	FastestSeconds    float64 `json:"fastest_pass_seconds"`
	ExamplesPerSecond float64 `json:"examples_per_second"`
	TokensPerSecond   float64 `json:"tokens_per_second"`

	// Rates of products in GFLOP/s. Limits are of the products with frozen weights by themselves.
	StandardGFLOPs  float64 `json:"gflops_standard"`   // as the standard algorithm counts them
	DoneGFLOPs      float64 `json:"gflops_done"`       // of the products really made
	LimitGFLOPs     float64 `json:"gflops_limit"`      // by the median time of each product
	LimitShare      float64 `json:"limit_share"`       // done in the median pass, of limit
	FastestGFLOPs   float64 `json:"gflops_fastest"`    // of the same products, by the fastest time of each
	FastestShare    float64 `json:"fastest_share"`     // done in the fastest pass, of fastest
	MedianOfFastest float64 `json:"median_of_fastest"` // done in the median pass, of fastest

	LoadSeconds float64 `json:"load_seconds"`
	PeakBytes   int64   `json:"peak_resident_bytes,omitempty"` // while stepping, weights included

	Parts   []benchPart `json:"parts"`
	Lengths [][][2]int  `json:"lengths"` // source and target tokens of every example of every batch
}

// benchPart is the time of one kind of op in a part of the step.
type benchPart struct {
	Part    string  `json:"part"`
	Kind    string  `json:"kind"`
	Seconds float64 `json:"seconds"` // of the mean pass
	Share   float64 `json:"share"`   // of the pass's time
	GFLOPs  float64 `json:"gflops"`  // a second
}

func newReport(b *bench, batches [][]model.Pair, times []time.Duration) *benchReport {
	var total time.Duration
	for _, t := range times {
		total += t
	}
	slices.Sort(times)
	median := (times[(len(times)-1)/2] + times[len(times)/2]).Seconds() / 2
	c := len(b.prompt) / b.Dim()
	r := &benchReport{
		Model: b.Name(), Engine: b.EngineName(), Passes: len(times), PromptTokens: c,
		PassSeconds: median, FastestSeconds: times[0].Seconds(), LoadSeconds: b.loaded.Seconds(),
	}
	var standard float64
	for _, pairs := range batches {
		standard += b.StepFLOPs(c, pairs)
		lengths := make([][2]int, len(pairs))
		for i, p := range pairs {
			r.Examples++
			r.Tokens += len(p.Source) + len(p.Target)
			lengths[i] = [2]int{len(p.Source), len(p.Target)}
		}
		r.Lengths = append(r.Lengths, lengths)
	}
	n := float64(len(times))
	r.ExamplesPerSecond, r.TokensPerSecond = float64(r.Examples)/median, float64(r.Tokens)/median
	r.StandardGFLOPs, r.DoneGFLOPs = standard/median/1e9, b.meter.FLOPs()/n/median/1e9
	rest := total
	for _, e := range b.meter.Entries() {
		p := benchPart{
			Part: e.Part, Kind: string(e.Kind),
			Seconds: e.Time.Seconds() / n, Share: e.Time.Seconds() / total.Seconds(),
		}
		if e.FLOPs > 0 {
			p.GFLOPs = e.FLOPs / e.Time.Seconds() / 1e9
		}
		if p.Part == "" {
			p.Part = "begin"
		}
		r.Parts = append(r.Parts, p)
		rest -= e.Time
	}
	r.Parts = append(r.Parts, benchPart{
		Part: "between ops", Kind: "other",
		Seconds: rest.Seconds() / n, Share: rest.Seconds() / total.Seconds(),
	})
	return r
}

// setLimits sets the engine's limits in FLOPs per second, by median and by fastest times.
func (r *benchReport) setLimits(median, fastest float64) {
	r.LimitGFLOPs, r.FastestGFLOPs = median/1e9, fastest/1e9
	if median > 0 {
		r.LimitShare = r.DoneGFLOPs / r.LimitGFLOPs
		r.MedianOfFastest = r.DoneGFLOPs / r.FastestGFLOPs
		r.FastestShare = r.MedianOfFastest * r.PassSeconds / r.FastestSeconds
	}
}

func (r *benchReport) writeJSON(w io.Writer) error {
	if r.Without == nil {
		r.Without = []string{}
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = w.Write(append(data, '\n'))
	return err
}

// text is the report as two tables.
func (r *benchReport) text() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-22s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("model", "%s", r.Model)
	line("engine", "%s", r.Engine)
	line("measured", "%s", r.What)
	line("switched off", "%s", withoutText(r.Without))
	line("pass", "%.4g s, median of %d; fastest %.4g s", r.PassSeconds, r.Passes, r.FastestSeconds)
	line("examples/s", "%.4g", r.ExamplesPerSecond)
	line("tokens/s", "%.4g, prompt not counted", r.TokensPerSecond)
	line("GFLOP/s done", "%.4g", r.DoneGFLOPs)
	line("GFLOP/s standard", "%.4g, as the standard algorithm counts", r.StandardGFLOPs)
	line("GEMM limit", "%.4g GFLOP/s, by the median time of each product by itself; %.4g by the fastest",
		r.LimitGFLOPs, r.FastestGFLOPs)
	line("share of the limit", "%.1f%%, median pass of the limit by medians", 100*r.LimitShare)
	line("share of the fastest", "%.1f%%, fastest pass of the limit by fastest times; the median pass %.1f%%",
		100*r.FastestShare, 100*r.MedianOfFastest)
	line("loading", "%.3g s", r.LoadSeconds)
	if r.PeakBytes > 0 {
		line("peak memory", "%.0f MiB resident while stepping, weights included", float64(r.PeakBytes)/(1<<20))
	}
	fmt.Fprintf(&b, "\n%-18s %-10s %10s %8s %10s\n", "part", "kind", "ms", "share", "GFLOP/s")
	for _, p := range r.Parts {
		gflops := ""
		if p.GFLOPs > 0 {
			gflops = fmt.Sprintf("%.1f", p.GFLOPs)
		}
		row := fmt.Sprintf("%-18s %-10s %10.2f %7.1f%% %10s", p.Part, p.Kind, 1000*p.Seconds, 100*p.Share, gflops)
		fmt.Fprintln(&b, strings.TrimRight(row, " "))
	}
	return b.String()
}
