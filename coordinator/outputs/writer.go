package outputs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/coordinator/blobsync"
	"github.com/dptune/dpt/coordinator/fsm"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/model/checkpoint"
)

// writer writes one job's files. The recorder's goroutine uses it.
type writer struct {
	dir         string
	job         *job.Job
	blobs       *blobsync.Sync // for states that are blobs
	logExamples bool
	metrics     *os.File // metrics.jsonl
	size        int64    // of metrics.jsonl, up to its last whole line
	last        ids.Step // the step of that line; 0 if there is none
}

// openWriter prepares dir and cuts metrics.jsonl back to what the log has committed: it removes a
// torn last line, and the lines of later steps. The caller adds the lines after w.last.
func openWriter(
	dir string,
	j *job.Job,
	blobs *blobsync.Sync,
	logExamples bool,
	committed ids.Step,
) (w *writer, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("output directory: %w", err)
	}
	path := filepath.Join(dir, "metrics.jsonl")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("output directory: %w", err)
	}
	w = &writer{dir: dir, job: j, blobs: blobs, logExamples: logExamples, metrics: f}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()

	// The lines to keep: whole ones, of steps that grow and are committed.
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		var l StepLine
		if err != nil || json.Unmarshal(line, &l) != nil {
			break
		}
		if ids.Step(l.Step) > committed || ids.Step(l.Step) <= w.last {
			break
		}
		w.last = ids.Step(l.Step)
		w.size += int64(len(line))
	}
	if err := f.Truncate(w.size); err != nil {
		return nil, fmt.Errorf("truncate %s: %w", path, err)
	}
	return w, nil
}

func (w *writer) close() error { return w.metrics.Close() }

// writeStep appends a committed step's line to metrics.jsonl.
func (w *writer) writeStep(r fsm.StepRecord, p *job.StepPlan) error {
	l := StepLine{
		Step:         int64(r.Step),
		Epoch:        p.Epoch,
		Loss:         r.Loss(),
		LR:           r.LearningRate,
		GradNorm:     r.GradNorm,
		TokensPerSec: tokensPerSecond(r, p),
		Seconds:      r.Seconds,
		Generation:   uint64(r.Generation),
		Workers:      r.Workers,
		StateDigest:  r.StateDigest.String(),
	}
	if w.logExamples {
		l.Examples = p.IDs()
	}
	line, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("metrics of step %d: %w", r.Step, err)
	}
	line = append(line, '\n')
	if _, err := w.metrics.WriteAt(line, w.size); err != nil {
		return errors.Join(fmt.Errorf("write metrics of step %d: %w", r.Step, err), w.metrics.Truncate(w.size))
	}
	w.size += int64(len(line))
	w.last = r.Step
	return nil
}

// tokensPerSecond is a committed step's speed in source and target tokens, the prompt's not
// counted.
func tokensPerSecond(r fsm.StepRecord, p *job.StepPlan) float64 {
	return float64(p.Tokens) / max(r.Seconds, 1e-9)
}

// writeEvaluations rewrites eval.jsonl.
func (w *writer) writeEvaluations(all []fsm.Evaluation) error {
	var buf bytes.Buffer
	for i, e := range all {
		l := EvalLine{
			Step:     int64(e.Step),
			Split:    e.Split,
			Examples: e.Examples,
			Loss:     e.Loss,
			Score:    e.Score,
			Metrics:  e.Metrics,
			Seconds:  e.Seconds,
			Probe:    e.Probe,
		}
		if w.job.Spec.Patience > 0 {
			l.Stale = fsm.Stale(all[:i+1])
		}
		line, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("evaluation of step %d: %w", e.Step, err)
		}
		buf.Write(append(line, '\n'))
	}
	return checkpoint.WriteFileAtomic(filepath.Join(w.dir, "eval.jsonl"), buf.Bytes())
}

// writeJobFile writes job.json.
func (w *writer) writeJobFile(m *fsm.Machine, version string) error {
	f := JobFile{
		JobID:         m.JobID(),
		Version:       version,
		Settings:      w.job.Spec,
		Status:        string(m.Status()),
		Finished:      m.Finished(),
		StoppedEarly:  m.StoppedEarly(),
		Step:          int64(m.Step()),
		StateDigest:   m.StateDigest().String(),
		HistoryDigest: m.History().String(),
		PromptStep:    int64(m.Step()),
	}
	if b := m.Best(); b != nil {
		f.PromptStep, f.BestScore = int64(b.Step), b.Score
	}
	if e := m.Failure(); e != nil {
		f.Failure = fmt.Sprintf("step %d: %s", e.Step, e.Reason)
	}
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("job.json: %w", err)
	}
	return checkpoint.WriteFileAtomic(filepath.Join(w.dir, "job.json"), append(data, '\n'))
}
