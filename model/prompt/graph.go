package prompt

import (
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Graph computes prompts and gradients for one Config, any number of times. One
// goroutine at a time may use it.
type Graph struct {
	cfg    Config
	embed  *program
	train  *program
	frozen *frozen
	prompt *gorgonia.Node
	grads  gorgonia.Nodes
}

// program is a compiled graph and the memory behind its inputs.
type program struct {
	vm     gorgonia.VM
	inputs [][]float32
}

// NewGraph builds and differentiates the graph of cfg.
func NewGraph(cfg Config) (g *Graph, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	defer recoverTo(&err, "build the graph")
	if g, err = newEmbedding(cfg); err != nil {
		return nil, err
	}
	g.frozen = &frozen{dim: cfg.Dim, length: cfg.Length, prompt: make([]float32, cfg.Dim*cfg.Length)}
	var trained gorgonia.Nodes
	var p *gorgonia.Node
	if g.train, trained, p, err = build(cfg); err != nil {
		return nil, err
	}
	loss, err := gorgonia.ApplyOp(g.frozen, p)
	if err != nil {
		return nil, fmt.Errorf("prompt: apply the backbone to P: %w", err)
	}
	if g.grads, err = gorgonia.Grad(loss, trained...); err != nil {
		return nil, fmt.Errorf("prompt: differentiate the graph: %w", err)
	}
	g.train.compile(p)
	return g, nil
}

// newEmbedding builds a graph that gives embeddings and no gradients.
func newEmbedding(cfg Config) (g *Graph, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	defer recoverTo(&err, "build the graph")
	g = &Graph{cfg: cfg}
	if g.embed, _, g.prompt, err = build(cfg); err != nil {
		return nil, err
	}
	g.embed.compile(g.prompt)
	return g, nil
}

// Embeddings returns the prompt that params make under cfg, c×e row-major: a
// row per virtual token.
func Embeddings(cfg Config, params []float32) ([]float32, error) {
	g, err := newEmbedding(cfg)
	if err != nil {
		return nil, err
	}
	return g.Embeddings(params)
}

// build makes the part of a graph that leads from the trained tensors to P.
func build(cfg Config) (*program, gorgonia.Nodes, *gorgonia.Node, error) {
	eg := gorgonia.NewGraph()
	prog := &program{}
	var trained gorgonia.Nodes
	for _, t := range cfg.Tensors() {
		backing := make([]float32, t.Size())
		shape := t.Shape
		if len(shape) == 1 {
			shape = []int{shape[0], 1}
		}
		value := tensor.New(tensor.WithShape(shape...), tensor.WithBacking(backing))
		trained = append(trained, gorgonia.NewMatrix(eg, tensor.Float32,
			gorgonia.WithName(t.Name), gorgonia.WithShape(shape...), gorgonia.WithValue(value)))
		prog.inputs = append(prog.inputs, backing)
	}
	p, err := find(cfg.Method).build(cfg, trained)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("prompt: build %s: %w", cfg.Method, err)
	}
	return prog, trained, p, nil
}

// compile makes the machine that runs the graph of n.
func (p *program) compile(n *gorgonia.Node) { p.vm = gorgonia.NewTapeMachine(n.Graph()) }

// run computes the graph on the given flat parameters.
func (p *program) run(params []float32) error {
	for _, in := range p.inputs {
		params = params[copy(in, params):]
	}
	defer p.vm.Reset()
	return p.vm.RunAll()
}

// Embeddings returns the prompt, c×e row-major: a row per virtual token.
func (g *Graph) Embeddings(params []float32) (rows []float32, err error) {
	if err := g.check(params); err != nil {
		return nil, err
	}
	defer recoverTo(&err, "compute P")
	if err := g.embed.run(params); err != nil {
		return nil, fmt.Errorf("prompt: compute P: %w", err)
	}
	p, err := floats(g.prompt.Value(), g.cfg.Dim*g.cfg.Length)
	if err != nil {
		return nil, err
	}
	rows = make([]float32, len(p))
	transposeInto(rows, p, g.cfg.Dim, g.cfg.Length)
	return rows, nil
}

// Gradient calls loss once, on the prompt that params make, and returns its
// value and the gradient with respect to params, in new memory. An error of
// loss comes back wrapped; a panic in it comes back as an error.
func (g *Graph) Gradient(params []float32, loss Loss) (value float64, grad []float32, err error) {
	if err := g.check(params); err != nil {
		return 0, nil, err
	}
	defer recoverTo(&err, "compute the gradient")
	f := g.frozen
	f.loss, f.err = loss, nil
	defer func() { f.loss, f.grad, f.err = nil, nil, nil }()

	if err := g.train.run(params); err != nil {
		if f.err != nil {
			err = f.err
		}
		return 0, nil, fmt.Errorf("prompt: compute the gradient: %w", err)
	}
	grad = make([]float32, 0, len(params))
	for i, t := range g.cfg.Tensors() {
		d, err := floats(g.grads[i].Value(), t.Size())
		if err != nil {
			return 0, nil, fmt.Errorf("prompt: gradient of %s: %w", t.Name, err)
		}
		grad = append(grad, d...)
	}
	return f.value, grad, nil
}

func (g *Graph) check(params []float32) error {
	if want := g.cfg.Size(); len(params) != want {
		return fmt.Errorf("prompt: %d parameters, want %d for %+v", len(params), want, g.cfg)
	}
	return nil
}

// recoverTo turns a panic, which is how gorgonia reports some errors, into an
// error.
func recoverTo(err *error, doing string) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("prompt: %s: gorgonia panicked: %v", doing, r)
	}
}
