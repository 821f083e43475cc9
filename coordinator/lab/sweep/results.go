package sweep

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/coordinator/job"
	"github.com/dptune/dpt/dataset"
)

// Result is a finished run: a line of results.jsonl.
type Result struct {
	Run
	Key         string          `json:"key"`
	Parameters  int64           `json:"trainable_parameters"`
	Metrics     dataset.Metrics `json:"metrics"`      // of the best evaluation, in percent
	Score       float64         `json:"score"`        // their mean
	BestStep    int64           `json:"best_step"`    // of the evaluation that they are of
	Steps       int64           `json:"steps"`        // trained
	Budget      int64           `json:"budget_steps"` // asked for: more than trained of a run that stopped early
	Seconds     float64         `json:"seconds"`      // of wall time
	JobID       string          `json:"job_id"`       //
	StateDigest string          `json:"state_digest"` // of the final trainer state
	Evaluations []Evaluation    `json:"evaluations"`
	Settings    *job.Spec       `json:"settings,omitempty"` // resolved
}

// Evaluation is one point of a run's course.
type Evaluation struct {
	Step  int64   `json:"step"`
	Score float64 `json:"score"`
	Loss  float64 `json:"loss"`
	Probe *Probe  `json:"probe,omitempty"`
}

// Probe is what the rank probe (method svd) sees: the entries of the diagonal Σ above and below zero, and the rank of the prompt.
type Probe struct {
	Positive int `json:"positive"`
	Negative int `json:"negative"`
	Rank     int `json:"rank"`
}

// Headline is the metric that Table 1 gives for the task: the first one.
func (r Result) Headline() float64 {
	if len(r.Metrics) == 0 {
		return math.NaN()
	}
	return r.Metrics[0].Value
}

// File is the name of a sweep's results in its directory.
const File = "results.jsonl"

// Results is a sweep's results file, open for more lines.
type Results struct {
	path string
	f    *os.File
	size int64
	have map[string]Result
}

// Open opens dir's results, making both where they are missing. A torn last line, of a process that was killed as it wrote, goes.
func Open(dir string) (*Results, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("sweep directory: %w", err)
	}
	path := filepath.Join(dir, File)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("sweep results: %w", err)
	}
	list, size, err := read(path)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sweep results: %w", err), f.Close())
	}
	r := &Results{path: path, f: f, size: size, have: map[string]Result{}}
	for _, x := range list {
		r.have[x.Key] = x
	}
	return r, nil
}

// Len is the number of results.
func (r *Results) Len() int { return len(r.have) }

// Has says whether the run's result is there.
func (r *Results) Has(run Run) bool {
	_, there := r.have[run.Key()]
	return there
}

// Add appends a result and makes it durable. A line is there whole or, after an error, not at all.
func (r *Results) Add(x Result) error {
	x.Key = x.Run.Key()
	if r.Has(x.Run) {
		return fmt.Errorf("%s: run %s is there already", r.path, x.Key)
	}
	line, err := json.Marshal(x)
	if err != nil {
		return fmt.Errorf("%s: run %s: %w", r.path, x.Key, err)
	}
	line = append(line, '\n')
	if _, err := r.f.WriteAt(line, r.size); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", r.path, err), r.f.Truncate(r.size))
	}
	if err := r.f.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", r.path, err)
	}
	r.size += int64(len(line))
	r.have[x.Key] = x
	return nil
}

// Close closes the file.
func (r *Results) Close() error { return r.f.Close() }

// Read reads dir's results in the order in which they were added.
func Read(dir string) ([]Result, error) {
	path := filepath.Join(dir, File)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: found no %s, want a directory that dpt sweep wrote", dir, File)
	}
	list, _, err := read(path)
	return list, err
}

// read reads the whole lines of a results file and says where they end. A line that is whole but no result is an error; what follows the
// last newline is not.
func read(path string) (list []Result, size int64, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, err
	}
	return parse(path, data)
}

// parse is read of a file that holds data.
func parse(path string, data []byte) (list []Result, size int64, err error) {
	seen := map[string]int{}
	for n := 1; ; n++ {
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		if !whole {
			return list, size, nil
		}
		var r Result
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, 0, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		if r.Key != r.Run.Key() {
			return nil, 0, fmt.Errorf("%s:%d: found key %q, want %q, the run's own", path, n, r.Key, r.Run.Key())
		}
		if first, ok := seen[r.Key]; ok {
			return nil, 0, fmt.Errorf("%s:%d: run %s is on line %d already", path, n, r.Key, first)
		}
		seen[r.Key] = n
		list = append(list, r)
		size += int64(len(line)) + 1
		data = rest
	}
}
