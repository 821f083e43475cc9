package fsm

import "github.com/dptune/dpt/coordinator/ids"

// Offer is a blob that the leader asks the replicas to fetch before it proposes the step that leads
// to it.
type Offer struct {
	Generation ids.Generation // that computed the state
	Step       ids.Step       // the state is the one after this step
	ids.Blob
}

// Member is one worker of a generation; its index in the list is its rank.
type Member struct {
	ID   string
	Addr string // host:port at which it accepts ring streams
}

// Evaluation is a committed evaluation.
type Evaluation struct {
	Step     ids.Step
	Split    string
	Loss     float64 // mean token loss
	Metrics  []byte  // JSON object, in percent
	Score    float64 // what Best compares first; greater is better
	Examples int64
	Seconds  float64 // wall time, as the leader measured it
	Probe    []byte  // JSON object with the counts of the rank probe; method svd only
}

// Failure is why a job cannot go on: something in its data that fails on every machine.
type Failure struct {
	Step   ids.Step // that cannot be computed, or the evaluated one
	Reason string
}

// EpochStat sums the training loss of one epoch. Each example counts once, under the parameters of
// the step that trained on it.
type EpochStat struct {
	LossSum float64 // over Tokens
	Tokens  int64   // target tokens
}

// Mean is the epoch's mean token loss.
func (e EpochStat) Mean() float64 {
	if e.Tokens == 0 {
		return 0
	}
	return e.LossSum / float64(e.Tokens)
}

// Best is the state with the highest evaluation score so far, and among equal scores the one with
// the lowest loss: a metric over few examples often stays equal while the loss falls.
type Best struct {
	Step  ids.Step
	Score float64
	Loss  float64
	State []byte   // nil if Blob names it
	Blob  ids.Blob // of size 0 if State holds it
}

// BeatenBy reports whether e is better than b; every evaluation is better than nil.
func (b *Best) BeatenBy(e Evaluation) bool {
	return b == nil || e.Score > b.Score || e.Score == b.Score && e.Loss < b.Loss
}

// StepRecord is what the metrics hold of a committed step. Its fields are those of
// fsmpb.StepCommitted.
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
