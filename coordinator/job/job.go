package job

import (
	"maps"
	"slices"
	"sync"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/dataset/tokenizer"
	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/t5"
)

// Job is a job's settings resolved against its files: the data, the tokenizer, the initial state.
// The coordinator holds the data set; workers get tokenized examples.
//
// Load fills the exported fields, and Cache.Load replaces ID; nobody changes them afterwards. Plan
// may be called from any goroutine, EvalExamples from one at a time.
type Job struct {
	ID          string // a new job's; a job that the log holds already keeps the log's
	Spec        Spec
	ModelPath   string // absolute; "" is the embedded model
	ModelDigest ids.Digest
	ModelConfig []byte         // the model's config.json
	Layout      []t5.Parameter // of the trained weights in full fine-tuning; nil for prompts
	Tokenizer   tokenizer.Tokenizer
	EvalSplits  []*dataset.Split  // one a task; none without evaluation
	Eval        []dataset.Example // the examples of EvalSplits, task after task
	Initial     *optim.State      // the trainer state before the first step
	InitialBlob ids.Blob          // that names Initial

	vocabulary int                // rows of the model's table of embeddings
	evalTokens []*coordpb.Example // of Eval; EvalExamples fills them in as they are asked for

	mu      sync.Mutex
	planner *planner               // used under mu
	plans   map[ids.Step]*StepPlan // the last keptPlans that Plan has made; under mu
}

// keptPlans bounds the plans that are kept: those of the steps in flight, which a new generation
// deals again and the recorder reads for the metrics.
const keptPlans = 64

// Plan is the plan of step t, from 1. The caller must not change it.
func (j *Job) Plan(t ids.Step) *StepPlan {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := j.plans[t]
	if p == nil {
		if j.plans == nil {
			j.plans = map[ids.Step]*StepPlan{}
		}
		p = j.planner.plan(t)
		j.plans[t] = p
		if len(j.plans) > keptPlans {
			delete(j.plans, slices.Min(slices.Collect(maps.Keys(j.plans))))
		}
	}
	return p
}
