package pretrain

import (
	"maps"
	"slices"

	"github.com/dptune/dpt/model/t5"
)

// Evaluation is the model's score on held-out examples.
type Evaluation struct {
	Step  int64
	Kinds []KindResult // by name; the last, "all", sums up all pairs, without spans
}

// KindResult is an evaluation of one kind of examples.
type KindResult struct {
	Kind  string
	Count int
	Loss  float64 // mean of target tokens
	Exact float64 // share of examples whose greedy output is the target; 0 for spans, which have many answers
}

// evaluate scores held-out examples, a part of them on each worker, and decodes the pairs among
// them.
func (r *run) evaluate() error {
	if r.EvalPairs == 0 || r.Evaluation == nil {
		return nil
	}
	examples := make([]example, r.EvalPairs)
	for i := range examples {
		examples[i] = r.Corpus.example(r.Settings, true, uint64(i))
	}

	// Score and decode, in groups of examples.
	type outcome struct {
		loss  float64
		exact bool
	}
	outcomes := make([]outcome, len(examples))
	const group = 32
	err := r.w.each((len(examples)+group-1)/group, func(worker, g int) error {
		lo, hi := g*group, min(len(examples), (g+1)*group)
		pairs, longest := make([]t5.Pair, 0, group), 0
		for _, e := range examples[lo:hi] {
			pairs = append(pairs, e.Pair)
			if e.kind != spanKind {
				longest = max(longest, len(e.Target))
			}
		}
		losses := make([]float64, len(pairs))
		out, err := r.w.trainers[worker].Model().Evaluate(nil, pairs, longest, losses)
		if err != nil {
			return err
		}
		for i, p := range pairs {
			outcomes[lo+i] = outcome{losses[i], slices.Equal(out[i], p.Target[:len(p.Target)-1])}
		}
		return nil
	})
	if err != nil {
		return err
	}

	// Sum up by kind, and over all pairs.
	type sums struct {
		count, tokens, exact int
		loss                 float64
	}
	kinds := map[string]*sums{}
	const all = "all"
	for i, e := range examples {
		names := []string{e.kind, all}
		if e.kind == spanKind {
			names = names[:1]
		}
		for _, name := range names {
			if kinds[name] == nil {
				kinds[name] = &sums{}
			}
			k := kinds[name]
			k.count, k.tokens, k.loss = k.count+1, k.tokens+len(e.Target), k.loss+outcomes[i].loss
			if outcomes[i].exact && e.kind != spanKind {
				k.exact++
			}
		}
	}
	ev := Evaluation{Step: r.s.Step}
	order := slices.DeleteFunc(slices.Sorted(maps.Keys(kinds)), func(name string) bool { return name == all })
	if kinds[all] != nil {
		order = append(order, all)
	}
	for _, name := range order {
		k := kinds[name]
		ev.Kinds = append(ev.Kinds,
			KindResult{name, k.count, k.loss / float64(k.tokens), float64(k.exact) / float64(k.count)})
	}
	r.Evaluation(ev)
	return nil
}
