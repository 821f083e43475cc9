package worker

import (
	"google.golang.org/grpc"

	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/optim"
)

// Backbone is what a worker asks of a frozen model; *model.Backbone documents the methods. One goroutine at a time
// uses it.
type Backbone interface {
	Dim() int
	Name() string
	EngineName() string
	Digest() [32]byte
	Numerics() string
	LossGrad(prompt []float32, pairs []model.Pair) (model.Result, []float32, error)
	Evaluate(prompt []float32, pairs []model.Pair, maxNew int) ([][]int32, model.Result, error)
	Close() error
}

// The points at which a Mark is called: the places where a crash separates two effects that belong together.
const (
	AfterJoin    = "worker: after join"    // the neighbours count on this member
	BeforeReduce = "worker: before reduce" // the gradient is here alone
	AfterReduce  = "worker: after reduce"  // the others may have the sum or not
	AfterUpdate  = "worker: after update"  // the new state is here, the report is not sent
	AfterReport  = "worker: after report"  // the report is sent, or lost on its way
)

// Marks are all points in the order in which a step meets them.
func Marks() []string {
	return []string{AfterJoin, BeforeReduce, AfterReduce, AfterUpdate, AfterReport}
}

func (w *worker) mark(point string) {
	if w.Mark != nil {
		w.Mark(point)
	}
}

func (c *Config) dialOptions() []grpc.DialOption {
	if c.Dial == nil {
		return nil
	}
	return []grpc.DialOption{grpc.WithContextDialer(c.Dial)}
}

func (w *worker) open(dir string) (Backbone, error) {
	if w.Open != nil {
		return w.Open(dir, w.Options)
	}
	b, err := model.Open(dir, w.Options)
	if err != nil {
		return nil, err // not b: a nil *model.Backbone is no nil Backbone
	}
	return b, nil
}

// Bugs of the protocol that the simulation's tests plant here, to see that they are found. Nothing else sets them.
var (
	plantedUpdate  func(id string, first bool, state *optim.State, again func() error) // after an update; first: of a generation
	plantedRestore func(have, sent optim.State) optim.State                            // in place of the state that a generation starts with
)
