package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/dptune/dpt/cmd/internal/cli"
	"github.com/dptune/dpt/model"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/prompt"
)

// scoreFlags are the flags of dpt score.
type scoreFlags struct {
	backboneFlags
	data      string
	grad      string
	logits    string
	weights   string
	maxSource int
	maxTarget int
}

// runScore prints the loss of each pair and of all pairs together.
func runScore(ctx context.Context, args []string, std cli.IO) error {
	var f scoreFlags
	cmd := cli.NewCommand("dpt score", "--model DIR --data pairs.jsonl [--prompt FILE] [--grad OUT] [--logits OUT]",
		`Reads a JSON object {"source", "target"} from each line and prints {"loss", "tokens"} for it: the mean `+
			`token loss of its target, </s> included, as Transformers gives it for that pair alone, and the number `+
			`of target tokens. The last line is the same for all pairs together: the mean over all target tokens.`)
	cmd.Notes = `--grad writes the gradient of the last line's loss as safetensors: "prompt" [c, e], a row per ` +
		`virtual token, and for every tensor that the prompt is made of a tensor with a d before its name, such as ` +
		`"dA" [e, b] and "dB" [b, c] of a decomposed prompt. All are float32.` + "\n\n" +
		`--weight-grad writes the same gradient with respect to all weights of the model, a tensor under each ` +
		`weight's name. There is no --prompt then.` + "\n\n" +
		`--logits writes "logits.0", "logits.1", ... [target tokens, vocabulary], float32: a tensor per line of the ` +
		`data, counted from 0.`
	cmd.Examples = []cli.Example{{
		Command: "dpt score --model ./t5-large --data pairs.jsonl --prompt runs/r1/prompt.safetensors " +
			"--grad grad.safetensors",
	}}
	f.bind(cmd)
	g := cmd.Group("Data")
	g.String(&f.data, "data", "`FILE` of pairs; - is standard input", dataFile).Required()
	g.Int(&f.maxSource, "max-source-length", "cut sources to `N` tokens, </s> included; 0 does not cut", cli.AtLeast(0))
	g.Int(&f.maxTarget, "max-target-length", "cut targets to `N` tokens, </s> included; 0 does not cut", cli.AtLeast(0))
	g = cmd.Group("Output")
	g.String(&f.grad, "grad", "write the gradient with respect to the prompt to `OUT`", cli.NewFile)
	g.String(&f.logits, "logits", "write the logits to `OUT`", cli.NewFile)
	g.String(&f.weights, "weight-grad", "write the gradient with respect to all weights to `OUT`", cli.NewFile)
	if err := cmd.Parse(args); err != nil {
		return err
	}
	if err := f.check(cmd); err != nil {
		return err
	}
	if f.grad != "" && f.prompt == "" {
		return cmd.Usagef("--grad %s without --prompt, want --prompt FILE: the gradient is the prompt's", f.grad)
	}
	if f.grad != "" && f.grad == f.logits {
		return cmd.Usagef("--grad and --logits are both %s, want two files", f.grad)
	}
	if f.weights != "" && f.prompt != "" {
		return cmd.Usagef("--weight-grad %s with --prompt %s, want no prompt: all weights are trained without one",
			f.weights, f.prompt)
	}
	if f.weights != "" && f.weights == f.logits {
		return cmd.Usagef("--weight-grad and --logits are both %s, want two files", f.weights)
	}
	b, err := f.open(std.Err)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	name, r, done, err := openInput(f.data, std.In)
	if err != nil {
		return err
	}
	s := scorer{backbone: b, flags: &f, in: newLineReader(ctx, name, r), out: bufio.NewWriter(std.Out)}
	return errors.Join(s.run(ctx), done())
}

// dataFile checks that the path is a file, or - for standard input.
func dataFile(path string) error {
	if path == "-" {
		return nil
	}
	return cli.ExistingFile(path)
}

// One pass through the model takes pairs until it reaches one of these bounds, so that memory does
// not grow with the file. The place of the cuts only changes the last bits of the gradient's
// float32 sums.
const (
	passPairs  = 32
	passTokens = 4096
)

// scorer scores the pairs of a file, one pass at a time.
type scorer struct {
	*backbone
	flags *scoreFlags
	in    *lineReader
	out   *bufio.Writer

	loss   float64             // sum over all target tokens so far
	tokens int                 // target tokens so far
	grad   []float64           // the gradient of loss, c×e; nil without --grad
	full   *weightGradient     // nil without --weight-grad
	logits []checkpoint.Tensor // one for each pair so far; nil without --logits
}

// score is a line of output.
type score struct {
	Loss   float64 `json:"loss"`
	Tokens int     `json:"tokens"`
}

func (s *scorer) run(ctx context.Context) error {
	if s.flags.grad != "" {
		s.grad = make([]float64, len(s.prompt.Embeddings))
	}
	if s.flags.weights != "" {
		var err error
		if s.full, err = openWeights(s.flags.model); err != nil {
			return err
		}
	}
	for {
		pairs, err := s.read()
		if err != nil {
			return errors.Join(err, s.out.Flush())
		}
		if len(pairs) == 0 {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.pass(pairs); err != nil {
			return fmt.Errorf("%s: lines %d to %d: %w", s.in.name, s.in.number-len(pairs)+1, s.in.number, err)
		}
	}
	if s.tokens == 0 {
		return fmt.Errorf(`%s: no lines, want a {"source", "target"} on each`, s.in.name)
	}
	if err := s.print(s.loss, s.tokens); err != nil {
		return err
	}
	if err := s.out.Flush(); err != nil {
		return err
	}
	return s.write()
}

// read returns the pairs of the next pass; none at the end of the file.
func (s *scorer) read() ([]model.Pair, error) {
	var pairs []model.Pair
	for tokens := 0; len(pairs) < passPairs && tokens < passTokens; {
		line, err := s.in.next()
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		const want = `an object with the strings "source" and "target"`
		var text struct {
			Source *string `json:"source"`
			Target *string `json:"target"`
		}
		if err := s.in.unmarshal(line, &text, want); err != nil {
			return nil, err
		}
		if text.Source == nil || text.Target == nil {
			missing := "source"
			if text.Source != nil {
				missing = "target"
			}
			return nil, s.in.errorf("no %q, want %s", missing, want)
		}
		pair := model.Pair{
			Source: encode(s.tok, *text.Source, s.flags.maxSource),
			Target: encode(s.tok, *text.Target, s.flags.maxTarget),
		}
		pairs = append(pairs, pair)
		tokens += s.prompt.Length + len(pair.Source) + len(pair.Target)
	}
	return pairs, nil
}

// pass runs the pairs through the model, prints their scores and collects what the files will hold.
func (s *scorer) pass(pairs []model.Pair) error {
	var result model.Result
	var err error
	if s.full != nil {
		result, err = s.full.add(s.backbone, pairs)
	} else if s.grad == nil {
		result, err = s.Score(s.prompt.Embeddings, pairs)
	} else {
		var grad []float32
		result, grad, err = s.LossGrad(s.prompt.Embeddings, pairs)
		for i, v := range grad {
			s.grad[i] += float64(v)
		}
	}
	if err != nil {
		return err
	}
	for i, loss := range result.Losses {
		if err := s.print(loss, result.Counts[i]); err != nil {
			return err
		}
		s.loss += loss
		s.tokens += result.Counts[i]
	}
	if s.flags.logits == "" {
		return nil
	}
	logits, err := s.Logits(s.prompt.Embeddings, pairs)
	if err != nil {
		return err
	}
	for i, rows := range logits {
		shape := []int{len(pairs[i].Target), len(rows) / len(pairs[i].Target)}
		s.logits = append(s.logits, checkpoint.F32(fmt.Sprintf("logits.%d", len(s.logits)), shape, rows))
	}
	return nil
}

// print writes the mean of a sum of token losses.
func (s *scorer) print(sum float64, tokens int) error {
	line, err := json.Marshal(score{Loss: sum / float64(tokens), Tokens: tokens})
	if err != nil { // JSON has no NaN
		return fmt.Errorf("loss %v over %d tokens, want a finite number", sum, tokens)
	}
	_, err = s.out.Write(append(line, '\n'))
	return err
}

// write writes the files that the flags name.
func (s *scorer) write() error {
	if s.flags.logits != "" {
		if err := checkpoint.Write(s.flags.logits, s.logits, nil); err != nil {
			return err
		}
	}
	if s.full != nil {
		return s.full.write(s.flags.weights, s.tokens)
	}
	if s.flags.grad == "" {
		return nil
	}
	mean := make([]float32, len(s.grad))
	for i, v := range s.grad {
		mean[i] = float32(v / float64(s.tokens))
	}
	tensors, err := gradientTensors(s.prompt, mean, s.loss/float64(s.tokens))
	if err != nil {
		return err
	}
	return checkpoint.Write(s.flags.grad, tensors, nil)
}

// gradientTensors are the gradient with respect to the prompt, c by e, and with respect to the
// tensors that the prompt is made of, if any. The same graph gives them as in training.
func gradientTensors(p checkpoint.Prompt, grad []float32, loss float64) ([]checkpoint.Tensor, error) {
	tensors := []checkpoint.Tensor{checkpoint.F32("prompt", []int{p.Length, p.Dim}, grad)}
	cfg, params, ok := prompt.FromFile(p)
	if !ok || len(p.Factors) == 0 {
		return tensors, nil
	}
	graph, err := prompt.NewGraph(cfg)
	if err != nil {
		return nil, err
	}
	_, factors, err := graph.Gradient(params, func([]float32) (float64, []float32, error) { return loss, grad, nil })
	if err != nil {
		return nil, err
	}
	for _, t := range cfg.Tensors() {
		tensors = append(tensors, checkpoint.F32("d"+t.Name, t.Shape, factors[t.Offset:t.Offset+t.Size()]))
	}
	return tensors, nil
}
