package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/coordinator/lab/sweep"
)

// shownSettings are the settings that a report lists, in its order.
var shownSettings = []struct {
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
		return text + ", SHA-256 " + shortDigest(s.TrainDigest)
	}},
	{"evaluation data", func(r sweep.Result, s *job.Spec) string {
		return fmt.Sprintf("%s/%s: %d examples, SHA-256 %s",
			r.Task, s.EvalSplit, s.EvalExamples, shortDigest(s.EvalDigest))
	}},
	{"epochs", func(r sweep.Result, s *job.Spec) string { return inRung(r, fmt.Sprint(s.Epochs)) }},
	{"steps", func(r sweep.Result, s *job.Spec) string {
		if s.Steps == int64(s.Epochs)*s.StepsPerEpoch {
			return "by epochs"
		}
		return inRung(r, fmt.Sprint(s.Steps))
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

// maxValues bounds the values that a report lists of one setting.
const maxValues = 16

// settingsTable lists what the runs were trained with, as their jobs resolved it, each value once.
func settingsTable(results []sweep.Result) string {
	var b strings.Builder
	b.WriteString("| setting | of all runs |\n| --- | --- |\n")
	for _, line := range shownSettings {
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
		if len(values) > maxValues {
			text = fmt.Sprintf("%s; and %d more", strings.Join(values[:maxValues], "; "), len(values)-maxValues)
		}
		if len(values) > 0 {
			fmt.Fprintf(&b, "| %s | %s |\n", line.name, strings.ReplaceAll(text, "|", "\\|"))
		}
	}
	return b.String()
}

// inRung adds the rung of a halving to a value; nothing if the run has the whole budget.
func inRung(r sweep.Result, value string) string {
	if r.Rung == 0 {
		return value
	}
	return fmt.Sprintf("%s in rung %d", value, r.Rung)
}

// shortDigest is the first 12 digits of a digest.
func shortDigest(digest string) string { return digest[:min(12, len(digest))] }

// halvingTable lists the candidates of each contest by rung, with their budgets and scores.
func halvingTable(g sweep.Grid, results []sweep.Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "The best 1/%d of a method's candidates go on from rung to rung (Jamieson and Talwalkar 2016),"+
		" by the mean score over %s. The tables below hold runs with the whole budget only.\n\n",
		g.Halving.Eta, plural(len(g.Seeds), "seed"))
	b.WriteString("| task | candidate | rung | budget | score |\n| --- | --- | ---: | ---: | ---: |\n")
	byKey := map[string]sweep.Result{}
	for _, r := range results {
		byKey[r.Key] = r
	}
	for _, c := range g.Contests() {
		for _, r := range g.Course(c, byKey) {
			rung := fmt.Sprint(r.Number)
			if r.Number == 0 {
				rung = "last"
			}
			for _, s := range r.Standings {
				score := "–"
				if s.Done {
					score = percent(s.Score)
				}
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n",
					c.Task, candidateName(c, s.Prompt), rung, g.Budget(r.Number), score)
			}
		}
	}
	return b.String()
}

// candidateName names a candidate by its method, its sizes and its contest.
func candidateName(c sweep.Contest, p sweep.Prompt) string {
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
