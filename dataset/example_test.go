package dataset_test

import (
	"fmt"
	"log"

	"github.com/dptune/dpt/dataset"
)

// Read a split, look at a training example, and score predictions; "" is the embedded data.
func Example() {
	fsys, err := dataset.OpenDir("")
	if err != nil {
		log.Fatal(err)
	}
	task, err := dataset.Lookup("rte")
	if err != nil {
		log.Fatal(err)
	}
	train, err := dataset.Load(fsys, task, "train", dataset.T5)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(train.Train[0].Source)
	fmt.Println("->", train.Train[0].Target)

	val, err := dataset.Load(fsys, task, "val", dataset.T5)
	if err != nil {
		log.Fatal(err)
	}
	predictions := make([]string, len(val.Eval))
	for i := range predictions {
		predictions[i] = "entailment"
	}
	metrics, err := val.Score(predictions)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(metrics)
	// Output:
	// rte hypothesis: Hana is richer than Yara. premise: Hana is poorer than Yara.
	// -> not_entailment
	// accuracy 50.00
}

// Every worker that knows the seed knows which examples a step sees.
func ExampleSampler() {
	sampler, err := dataset.NewSampler(10, 4, 2, 42)
	if err != nil {
		log.Fatal(err)
	}
	for t := range sampler.StepsPerEpoch() {
		epoch, micro := sampler.Step(t)
		fmt.Println(epoch, micro)
	}
	// Output:
	// 0 [[7 0] [3 2]]
	// 0 [[4 5] [8 6]]
	// 0 [[1 9]]
}
