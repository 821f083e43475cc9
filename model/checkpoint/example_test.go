package checkpoint_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/dptune/dpt/model/checkpoint"
)

// A safetensors file is written atomically and checked in full when it is opened.
func ExampleWrite() {
	dir, err := os.MkdirTemp("", "checkpoint")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "weights.safetensors")
	weights := checkpoint.F32("weights", []int{2, 3}, []float32{1, 2, 3, 4, 5, 6})
	if err := checkpoint.Write(path, []checkpoint.Tensor{weights}, map[string]string{"step": "7"}); err != nil {
		log.Fatal(err)
	}

	file, err := checkpoint.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	tensor, err := file.Tensor("weights")
	if err != nil {
		log.Fatal(err)
	}
	numbers, err := tensor.Float32()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(file.Names(), tensor.Shape, numbers, file.Metadata()["step"])

	// Output: [weights] [2 3] [1 2 3 4 5 6] 7
}

// A prompt file may hold A and B alone; the prompt is their product, a row per virtual token.
func ExampleReadPrompt() {
	dir, err := os.MkdirTemp("", "checkpoint")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "prompt.safetensors")
	a := checkpoint.F32("A", []int{2, 1}, []float32{1, 10})   // [e b]
	b := checkpoint.F32("B", []int{1, 3}, []float32{1, 2, 3}) // [b c]
	if err := checkpoint.Write(path, []checkpoint.Tensor{a, b}, nil); err != nil {
		log.Fatal(err)
	}

	prompt, err := checkpoint.ReadPrompt(path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d virtual tokens of %d numbers: %v\n", prompt.Length, prompt.Dim, prompt.Embeddings)

	// Output: 3 virtual tokens of 2 numbers: [1 10 2 20 3 30]
}

// OpenModel reads a model directory as Transformers' save_pretrained writes it.
func ExampleOpenModel() {
	dir, err := os.MkdirTemp("", "checkpoint")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	norm := checkpoint.BF16("encoder.final_layer_norm.weight", []int{4}, []float32{1, 1, 1, 1})
	if err := checkpoint.WriteModel(dir, []byte(`{"d_model": 4}`), []checkpoint.Tensor{norm}, nil); err != nil {
		log.Fatal(err)
	}

	model, err := checkpoint.OpenModel(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	weights, err := model.Float32("encoder.final_layer_norm.weight", 4)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(model.Names(), weights)
	_, err = model.Float32("encoder.final_layer_norm.weight", 8)
	fmt.Println("of another shape:", err != nil)

	// Output:
	// [encoder.final_layer_norm.weight] [1 1 1 1]
	// of another shape: true
}
