package prompt_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/prompt"
)

// Gradient descent on A and B of a decomposed prompt. The loss, here the squared distance of the
// prompt from all ones, stands in for a frozen model.
func Example() {
	cfg := prompt.Config{Method: prompt.DPT, Dim: 4, Length: 3, Bottleneck: 2}
	fmt.Println(cfg.Size(), "numbers are trained for a prompt of", cfg.Length*cfg.Dim)
	params, err := cfg.Init(prompt.Start{Seed: 1, Std: 0.5})
	if err != nil {
		log.Fatal(err)
	}
	graph, err := prompt.NewGraph(cfg)
	if err != nil {
		log.Fatal(err)
	}
	distance := func(rows []float32) (loss float64, gradient []float32, err error) {
		gradient = make([]float32, len(rows))
		for i, v := range rows {
			loss += float64((v - 1) * (v - 1))
			gradient[i] = 2 * (v - 1)
		}
		return loss, gradient, nil
	}
	for range 200 {
		_, gradient, err := graph.Gradient(params, distance)
		if err != nil {
			log.Fatal(err)
		}
		for i, g := range gradient {
			params[i] -= 0.05 * g
		}
	}
	rows, err := graph.Embeddings(params)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the first virtual token is %.2f\n", rows[:cfg.Dim])

	// Output:
	// 14 numbers are trained for a prompt of 12
	// the first virtual token is [1.00 1.00 1.00 1.00]
}

// What the registry knows of residual prompt tuning, with a prompt of 100 tokens for T5-Small.
func ExampleLookup() {
	m, err := prompt.Lookup(prompt.ResPT)
	if err != nil {
		log.Fatal(err)
	}
	cfg := prompt.Config{Method: m.Name, Dim: 512, Length: 100, Bottleneck: m.Bottleneck.Default(512, 100)}
	fmt.Println(m.Title, "starts from", m.DefaultStart)
	fmt.Println(m.Bottleneck.Meaning, "is", cfg.Bottleneck)
	fmt.Println(cfg.Size(), "numbers")

	// Output:
	// Residual PT starts from vocabulary
	// the width of respt's MLP is 400
	// 462736 numbers
}

// A prompt file holds the prompt and the tensors that were trained, so that training can continue
// from it.
func ExampleConfig_Continue() {
	cfg := prompt.Config{Method: prompt.DPT, Dim: 4, Length: 3, Bottleneck: 2}
	params, err := cfg.Init(prompt.Start{Seed: 1, Std: 0.5})
	if err != nil {
		log.Fatal(err)
	}
	file, err := cfg.File(params, map[string]string{"task": "rte"})
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "prompt")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "prompt.safetensors")
	if err := checkpoint.WritePrompt(path, file); err != nil {
		log.Fatal(err)
	}

	read, err := checkpoint.ReadPrompt(path)
	if err != nil {
		log.Fatal(err)
	}
	again, err := cfg.Continue(read, prompt.Start{Seed: 2, Std: 0.5})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(read.Metadata["task"], len(read.Factors), again[0] == params[0])

	// Output: rte 2 true
}
