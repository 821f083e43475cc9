package t5

import "fmt"

// Parameter is one tensor of a checkpoint in the vector of all weights, which holds its elements
// row-major from Offset on.
type Parameter struct {
	Name   string // as Transformers names it
	Shape  []int
	Offset int
}

// Size is the number of elements.
func (p Parameter) Size() int {
	n := 1
	for _, s := range p.Shape {
		n *= s
	}
	return n
}

// Parameters lists all weights of the architecture in the order of one vector, in which weights
// that are stacked into one product are neighbours. tied leaves out the output projection, which is
// the embedding table then.
func (c Config) Parameters(tied bool) []Parameter {
	var list []Parameter
	offset := 0
	add := func(name string, shape ...int) {
		p := Parameter{Name: name, Shape: shape, Offset: offset}
		offset += p.Size()
		list = append(list, p)
	}
	d, inner := c.DModel, c.inner()
	attention := func(prefix string, biased bool) {
		add(prefix+".q.weight", inner, d)
		add(prefix+".k.weight", inner, d)
		add(prefix+".v.weight", inner, d)
		add(prefix+".o.weight", d, inner)
		if biased {
			add(prefix+".relative_attention_bias.weight", c.RelativeBuckets, c.NumHeads)
		}
	}
	add("shared.weight", c.VocabSize, d)
	for _, stack := range []struct {
		name   string
		layers int
		cross  bool
	}{{"encoder", c.NumLayers, false}, {"decoder", c.NumDecoderLayers, true}} {
		for i := range stack.layers {
			block := fmt.Sprintf("%s.block.%d.layer.", stack.name, i)
			attention(block+"0.SelfAttention", i == 0 || c.LayerBiases)
			add(block+"0.layer_norm.weight", d)
			ff := block + "1."
			if stack.cross {
				attention(block+"1.EncDecAttention", false)
				add(block+"1.layer_norm.weight", d)
				ff = block + "2."
			}
			if c.gated() {
				add(ff+"DenseReluDense.wi_0.weight", c.DFF, d)
				add(ff+"DenseReluDense.wi_1.weight", c.DFF, d)
			} else {
				add(ff+"DenseReluDense.wi.weight", c.DFF, d)
			}
			add(ff+"DenseReluDense.wo.weight", d, c.DFF)
			add(ff+"layer_norm.weight", d)
		}
		add(stack.name+".final_layer_norm.weight", d)
	}
	if !tied {
		add("lm_head.weight", c.VocabSize, d)
	}
	return list
}

// Tied reports whether a checkpoint has no output projection of its own.
func Tied(w Weights) bool { return !w.Has("lm_head.weight") }

// ReadAll reads all weights of the architecture into one vector in the order of Parameters.
// Embeddings may have any name that New knows.
func ReadAll(cfg Config, w Weights) ([]float32, error) {
	if err := checkTables(cfg, w); err != nil {
		return nil, err
	}
	params := cfg.Parameters(Tied(w))
	last := params[len(params)-1]
	all := make([]float32, last.Offset+last.Size())
	for _, p := range params {
		name := p.Name
		if name == "shared.weight" {
			name = tableName(w)
		}
		v, err := w.Float32(name, p.Shape...)
		if err != nil {
			return nil, err
		}
		copy(all[p.Offset:], v)
	}
	return all, nil
}

// vector is a vector of all weights as Weights.
type vector struct {
	all    []float32
	params map[string]Parameter
}

func newVector(params []Parameter, all []float32) (*vector, error) {
	v := &vector{all: all, params: make(map[string]Parameter, len(params))}
	size := 0
	for _, p := range params {
		v.params[p.Name] = p
		size += p.Size()
	}
	if len(all) != size {
		return nil, fmt.Errorf("%d weights, want the architecture's %d", len(all), size)
	}
	return v, nil
}

func (v *vector) Has(name string) bool {
	_, ok := v.params[name]
	return ok
}

func (v *vector) Float32(name string, shape ...int) ([]float32, error) {
	p, ok := v.params[name]
	if !ok {
		return nil, fmt.Errorf("weight %s is missing", name)
	}
	if fmt.Sprint(shape) != fmt.Sprint(p.Shape) {
		return nil, fmt.Errorf("weight %s: shape %v, want %v", name, p.Shape, shape)
	}
	return v.all[p.Offset : p.Offset+p.Size()], nil
}
