package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/lab/sweep"
)

// shown are the settings that a report names, in its order.
var shown = []struct {
	name string
	of   func(sweep.Result, *job.Spec) string
}{
	{"model", func(r sweep.Result, s *job.Spec) string {
		return fmt.Sprintf("%s, SHA-256 %s", modelName(r.Model), s.ModelDigest)
	}},
	{"template", func(_ sweep.Result, s *job.Spec) string { return s.Template }},
	{"training data", func(r sweep.Result, s *job.Spec) string {
		text := fmt.Sprintf("%s: %d examples", r.Task, s.TrainExamples)
		if r.Shots > 0 {
			return fmt.Sprintf("%d examples of each task, drawn by the seed", s.TrainExamples)
		}
		return text + ", SHA-256 " + short(s.TrainDigest)
	}},
	{"evaluation data", func(r sweep.Result, s *job.Spec) string {
		return fmt.Sprintf("%s/%s: %d examples, SHA-256 %s", r.Task, s.EvalSplit, s.EvalExamples, short(s.EvalDigest))
	}},
	{"epochs", func(r sweep.Result, s *job.Spec) string { return rung(r, fmt.Sprint(s.Epochs)) }},
	{"steps", func(r sweep.Result, s *job.Spec) string {
		if s.Steps == int64(s.Epochs)*s.StepsPerEpoch {
			return "by epochs"
		}
		return rung(r, fmt.Sprint(s.Steps))
	}},
	{"early stopping", func(_ sweep.Result, s *job.Spec) string {
		if s.Patience == 0 {
			return "none"
		}
		return fmt.Sprintf("after %d evaluations in a row without an improvement", s.Patience)
	}},
	{"evaluation every", func(_ sweep.Result, s *job.Spec) string {
		if s.EvalEvery == 0 {
			return "epoch"
		}
		return fmt.Sprintf("%d steps", s.EvalEvery)
	}},
	{"batch size", func(_ sweep.Result, s *job.Spec) string { return fmt.Sprint(s.BatchSize) }},
	{"learning rate", func(r sweep.Result, s *job.Spec) string {
		return fmt.Sprintf("%s %g", methodName(r.Method), s.LR)
	}},
	{"warm-up steps", func(_ sweep.Result, s *job.Spec) string { return fmt.Sprint(s.WarmupSteps) }},
	{"weight decay", func(_ sweep.Result, s *job.Spec) string { return fmt.Sprint(s.WeightDecay) }},
	{"gradient norm", func(_ sweep.Result, s *job.Spec) string { return fmt.Sprint(s.MaxGradNorm) }},
	{"source and target tokens", func(_ sweep.Result, s *job.Spec) string {
		return fmt.Sprintf("%d, %d", s.MaxSourceLength, s.MaxTargetLength)
	}},
}

// mostValues bounds the values that a report lists of one setting.
const mostValues = 16

// settings lists what the runs were trained with, as their jobs resolved it: where they differ, each value once.
func settings(results []sweep.Result) string {
	var b strings.Builder
	b.WriteString("| setting | of all runs |\n| --- | --- |\n")
	for _, line := range shown {
		var values []string
		for _, r := range results {
			if r.Settings == nil {
				continue
			}
			if v := line.of(r, r.Settings); !slices.Contains(values, v) {
				values = append(values, v)
			}
		}
		text := strings.Join(values, "; ")
		if len(values) > mostValues {
			text = fmt.Sprintf("%s; and %d more", strings.Join(values[:mostValues], "; "), len(values)-mostValues)
		}
		if len(values) > 0 {
			fmt.Fprintf(&b, "| %s | %s |\n", line.name, strings.ReplaceAll(text, "|", "\\|"))
		}
	}
	return b.String()
}

// rung says of which part of a halving a value is.
func rung(r sweep.Result, value string) string {
	if r.Rung == 0 {
		return value
	}
	return fmt.Sprintf("%s in rung %d", value, r.Rung)
}

func short(digest string) string { return digest[:min(12, len(digest))] }

// halving says of each contest what was tried with how much, and who went on.
func halving(g sweep.Grid, results []sweep.Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "The best 1/%d of a method's candidates go on from rung to rung (Jamieson and Talwalkar 2016), by the mean score over %s. The tables below hold runs with the whole budget only.\n\n",
		g.Halving.Eta, plural(len(g.Seeds), "seed"))
	b.WriteString("| task | candidate | rung | budget | score |\n| --- | --- | ---: | ---: | ---: |\n")
	have := map[string]sweep.Result{}
	for _, r := range results {
		have[r.Key] = r
	}
	for _, c := range g.Contests() {
		for _, r := range g.Course(c, have) {
			rung := fmt.Sprint(r.Number)
			if r.Number == 0 {
				rung = "last"
			}
			for _, s := range r.Standings {
				score := "–"
				if s.Done {
					score = number(s.Score)
				}
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", c.Task, candidate(c, s.Prompt), rung, g.Budget(r.Number), score)
			}
		}
	}
	return b.String()
}

// candidate names a prompt by all that it is.
func candidate(c sweep.Contest, p sweep.Prompt) string {
	text := methodName(c.Method)
	if p.Length > 0 {
		text += fmt.Sprintf(", c = %d", p.Length)
	}
	if p.Bottleneck > 0 {
		text += fmt.Sprintf(", b = %d", p.Bottleneck)
	}
	if p.LR > 0 {
		text += fmt.Sprintf(", lr = %g", p.LR)
	}
	if c.Shots > 0 {
		text += fmt.Sprintf(", %d shots", c.Shots)
	}
	if c.Model != "" {
		text += ", " + modelName(c.Model)
	}
	return text
}
