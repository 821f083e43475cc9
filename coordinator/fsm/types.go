package fsm

import "github.com/dptune/dpt/coordinator/ids"

// Offer is a blob that the leader asks the replicas to take before it proposes the step that leads to it.
type Offer struct {
	Generation ids.Generation
	Step       ids.Step
	ids.Blob
}

// Member is one worker of a generation; its index in the list is its rank.
type Member struct {
	ID   string
	Addr string
}

// Evaluation is a committed evaluation.
type Evaluation struct {
	Step     ids.Step
	Split    string
	Loss     float64 // mean token loss
	Metrics  []byte  // JSON object, in percent
	Score    float64 // what "best" compares, greater is better
	Examples int64
	Seconds  float64
	Probe    []byte // JSON object of what the rank probe sees; empty for other methods
}

// Failure is why a job cannot go on: something in its data that fails on every machine.
type Failure struct {
	Step   ids.Step
	Reason string
}

// EpochStat sums the training loss of one epoch: each example counted once, under the state it met.
type EpochStat struct {
	LossSum float64
	Tokens  int64
}

// Mean is the epoch's mean token loss.
func (e EpochStat) Mean() float64 {
	if e.Tokens == 0 {
		return 0
	}
	return e.LossSum / float64(e.Tokens)
}

// Best is the state with the highest evaluation score so far, and among equal scores the lowest loss: a metric over few
// examples often stands still while the loss falls.
type Best struct {
	Step  ids.Step
	Score float64
	Loss  float64
	State []byte // nil where Blob names it
	Blob  ids.Blob
}

// BeatenBy says whether e is better; anything is better than nil.
func (b *Best) BeatenBy(e Evaluation) bool {
	return b == nil || e.Score > b.Score || e.Score == b.Score && e.Loss < b.Loss
}

// StepRecord is what a committed step leaves for the metrics, without the state.
type StepRecord struct {
	Generation   ids.Generation
	Step         ids.Step
	BatchDigest  ids.Digest
	StateDigest  ids.Digest
	LossSum      float64
	Tokens       int64
	LearningRate float64
	GradNorm     float64
	Seconds      float64
	Workers      int
}

// Loss is the mean token loss of the step's global batch, before the update.
func (r StepRecord) Loss() float64 { return r.LossSum / float64(r.Tokens) }
