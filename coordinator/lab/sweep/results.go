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
	Key         string          `json:"key"` // Run.Key()
	Parameters  int64           `json:"trainable_parameters"`
	Metrics     dataset.Metrics `json:"metrics"`      // of the best evaluation, in percent
	Score       float64         `json:"score"`        // mean of Metrics
	BestStep    int64           `json:"best_step"`    // of the best evaluation
	Steps       int64           `json:"steps"`        // trained
	Budget      int64           `json:"budget_steps"` // asked for; more than Steps if the run stopped early
	Seconds     float64         `json:"seconds"`      // wall time of the steps and evaluations
	JobID       string          `json:"job_id"`
	StateDigest string          `json:"state_digest"`       // of the final trainer state
	Evaluations []Evaluation    `json:"evaluations"`        // in order
	Settings    *job.Spec       `json:"settings,omitempty"` // as the coordinator resolved them
}

// Evaluation is one evaluation of a run.
type Evaluation struct {
	Step  int64   `json:"step"`
	Score float64 `json:"score"`
	Loss  float64 `json:"loss"`            // mean token loss
	Probe *Probe  `json:"probe,omitempty"` // method svd only
}

// Probe is what the rank probe (method svd) counts: the entries of the diagonal Σ above and below
// zero, and the rank of the prompt.
type Probe struct {
	Positive int `json:"positive"`
	Negative int `json:"negative"`
	Rank     int `json:"rank"`
}

// Headline is the metric that the paper's Table 1 gives for the task: the first one; NaN if there
// is none.
func (r Result) Headline() float64 {
	if len(r.Metrics) == 0 {
		return math.NaN()
	}
	return r.Metrics[0].Value
}

// File is the name of a sweep's results in its directory.
const File = "results.jsonl"

// Results is a sweep's results file, open for more lines. One goroutine uses it.
type Results struct {
	path  string
	file  *os.File
	size  int64             // of the file's whole lines, in bytes
	byKey map[string]Result // by Run.Key
}

// Open opens the results in dir and creates both if they do not exist. It cuts off a torn last
// line, which a process leaves that is killed while it writes.
func Open(dir string) (*Results, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("sweep directory: %w", err)
	}
	path := filepath.Join(dir, File)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("sweep results: %w", err)
	}
	list, size, err := read(path)
	if err == nil {
		err = file.Truncate(size)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sweep results: %w", err), file.Close())
	}
	r := &Results{path: path, file: file, size: size, byKey: map[string]Result{}}
	for _, x := range list {
		r.byKey[x.Key] = x
	}
	return r, nil
}

// Len is the number of results.
func (r *Results) Len() int { return len(r.byKey) }

// Has reports whether the run has a result.
func (r *Results) Has(run Run) bool {
	_, ok := r.byKey[run.Key()]
	return ok
}

// Add appends a result, whose Key it fills in, and makes it durable. After an error the result
// counts as not added.
func (r *Results) Add(x Result) error {
	x.Key = x.Run.Key()
	if r.Has(x.Run) {
		return fmt.Errorf("%s: run %s has a result already", r.path, x.Key)
	}
	line, err := json.Marshal(x)
	if err != nil {
		return fmt.Errorf("%s: run %s: %w", r.path, x.Key, err)
	}
	line = append(line, '\n')
	if _, err := r.file.WriteAt(line, r.size); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", r.path, err), r.file.Truncate(r.size))
	}
	if err := r.file.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", r.path, err)
	}
	r.size += int64(len(line))
	r.byKey[x.Key] = x
	return nil
}

// Close closes the file.
func (r *Results) Close() error { return r.file.Close() }

// Read reads dir's results in the order in which they were added.
func Read(dir string) ([]Result, error) {
	path := filepath.Join(dir, File)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: found no %s, want a directory that dpt sweep wrote", dir, File)
	}
	list, _, err := read(path)
	return list, err
}

// read reads the whole lines of a results file and returns their size in bytes. A whole line that
// is no result is an error; what follows the last newline is not.
func read(path string) (list []Result, size int64, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, err
	}
	return parse(path, data)
}

// parse does the work of read for a file that holds data.
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
