package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/lab/sweep"
	"github.com/dptune/dpt/dataset"
)

// number checks for a whole number of at least low.
func number(low uint64) cli.Check[string] {
	return func(text string) error {
		if n, err := strconv.ParseUint(text, 10, 63); err != nil || n < low {
			return fmt.Errorf("want whole numbers of at least %d", low)
		}
		return nil
	}
}

// checkRate checks for X or METHOD=X.
func checkRate(text string) error {
	_, err := parseRate(text)
	return err
}

// parseRate reads X or METHOD=X.
func parseRate(text string) (r sweep.Rate, err error) {
	method, x, own := strings.Cut(text, "=")
	if !own {
		method, x = "", text
	}
	r.Method = method
	if r.LR, err = strconv.ParseFloat(x, 64); err != nil || !(r.LR > 0) || r.LR > 1e6 {
		return r, errors.New("want positive numbers, or METHOD=X")
	}
	if own && !slices.Contains(job.MethodNames(), method) {
		return r, fmt.Errorf("want METHOD one of %s", strings.Join(job.MethodNames(), ", "))
	}
	return r, nil
}

// parseNumbers reads texts that number has checked.
func parseNumbers(texts []string) []int {
	list := make([]int, len(texts))
	for i, t := range texts {
		list[i], _ = strconv.Atoi(t)
	}
	return list
}

// grid is the preset's grid, with the user's lists in place of its own, and the settings that all
// runs share.
func (f *sweepFlags) grid(cmd *cli.Command, s job.Settings) (sweep.Grid, error) {
	models := []string{""}
	for i, m := range f.models {
		abs, err := filepath.Abs(m)
		if err != nil {
			return sweep.Grid{}, fmt.Errorf("--models %s: %w", m, err)
		}
		models = append(models[:i], abs)
	}
	g, err := sweep.Preset(f.preset, models)
	if err != nil {
		return g, err
	}
	if f.tasks != nil {
		g.Tasks = nil
		for _, name := range f.tasks {
			t, err := dataset.Lookup(name)
			if err != nil {
				return g, err
			}
			g.Tasks = append(g.Tasks, t.Name())
		}
	}
	if f.methods != nil {
		if err := g.RestrictMethods(f.methods); err != nil {
			return g, err
		}
	}
	if f.models == nil {
		g.ShortenPrompts()
	}
	if f.seeds != nil {
		g.Seeds = nil
		for _, n := range parseNumbers(f.seeds) {
			g.Seeds = append(g.Seeds, uint64(n))
		}
	}
	if f.shots != nil {
		g.Shots = parseNumbers(f.shots)
	}
	if f.lengths != nil {
		g.VaryLengths(parseNumbers(f.lengths))
	}
	if f.bottlenecks != nil {
		g.VaryBottlenecks(parseNumbers(f.bottlenecks))
	}
	var rates []sweep.Rate
	for _, text := range f.lrs {
		r, err := parseRate(text)
		if err != nil {
			return g, err
		}
		rates = append(rates, r)
	}
	tuning := func(r sweep.Rate) bool { return r.Method == "" || r.Method == job.FineTuning }
	if f.models == nil && !cmd.Changed("lr") && !slices.ContainsFunc(rates, tuning) {
		rates = append(rates, sweep.Rate{Method: job.FineTuning, LR: embeddedTuning})
	}
	g.VaryLearningRates(rates)
	if f.halving > 0 {
		g.Halving = &sweep.Halving{Eta: f.halving, Rungs: f.rungs}
	} else if cmd.Changed("rungs") {
		return g, cmd.Usagef("--rungs without --halving, want both or none")
	}
	s.Model, s.Task, s.Method, s.Shots, s.Seed = "", "", "", 0, 0 // each run has its own
	g.Settings = s
	if err := g.Validate(); err != nil {
		return g, cmd.Usagef("%s", err)
	}
	return g, nil
}
