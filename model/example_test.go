package model_test

import (
	"fmt"
	"log"

	"github.com/dptune/dpt/dataset/tokenizer"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/tiny"
)

// The embedded model answers a text of its small world, and a step against the gradient makes a
// soft prompt better.
func Example() {
	backbone, err := model.Open("", model.Options{Threads: 1}) // "" is the embedded model
	if err != nil {
		log.Fatal(err)
	}
	defer backbone.Close()
	tok, err := tokenizer.OpenFS(tiny.FS(), tiny.Name)
	if err != nil {
		log.Fatal(err)
	}
	encode := func(text string) []int32 { return append(tok.Encode(text), tok.EOSID()) }
	pair := model.Pair{
		Source: encode("other verb: Zack was given a cup by Ray."),
		Target: encode("Zack got a cup from Ray."),
	}

	// Without a prompt.
	outputs, err := backbone.Generate(nil, [][]int32{pair.Source}, 30)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tok.Decode(outputs[0]))

	// A prompt of two virtual tokens, at first all zeros.
	prompt := make([]float32, 2*backbone.Dim())
	before, gradient, err := backbone.LossGrad(prompt, []model.Pair{pair})
	if err != nil {
		log.Fatal(err)
	}
	for i, g := range gradient {
		prompt[i] -= 0.1 * g
	}
	after, err := backbone.Score(prompt, []model.Pair{pair})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("target tokens:", before.Tokens)
	fmt.Println("lower loss:", after.Loss < before.Loss)

	// Output:
	// Zack got a cup from Ray.
	// target tokens: 25
	// lower loss: true
}

// A worker is admitted to a job only if it computes the bits of the others.
func ExampleBackbone_Numerics() {
	backbone, err := model.Open("", model.Options{Engine: "portable", Threads: 3})
	if err != nil {
		log.Fatal(err)
	}
	defer backbone.Close()
	other, err := model.Open("", model.Options{Engine: "portable", Threads: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer other.Close()
	fmt.Println(backbone.Digest() == other.Digest() && backbone.Numerics() == other.Numerics())

	// Output: true
}
