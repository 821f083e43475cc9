package job

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dptune/dpt/coordinator/ids"
	"github.com/dptune/dpt/dataset"
	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/optim"
	"github.com/dptune/dpt/model/prompt"
)

// InitFroms are the values of Settings.InitFrom.
var InitFroms = []string{
	prompt.StartGaussian,   // numbers from a normal distribution of standard deviation InitStd
	prompt.StartUniform,    // numbers from ±0.5, as the DPT authors' code draws A and B
	prompt.StartVocabulary, // embeddings of tokens drawn among the 5,000 most frequent (Lester et al. 2021)
	prompt.StartLabels,     // embeddings of the task's labels (the same), and further rows as with vocabulary
}

const (
	uniformRange = 0.5
	// commonTokens is how many ids tokens are drawn from: a SentencePiece vocabulary lists its
	// pieces by falling frequency.
	commonTokens = 5000
)

// validateStart checks the method and where the prompt starts from.
func (s Settings) validateStart() error {
	method, err := LookupMethod(s.Method)
	if err != nil {
		return &SettingError{Flag: "method", Found: s.Method, Want: "one of " + strings.Join(MethodNames(), ", ")}
	}
	if method.Prompt == nil {
		return s.validateFineTuning()
	}
	if s.Bottleneck > 0 && method.Prompt.Bottleneck == nil {
		return &SettingError{
			Flag:  "bottleneck",
			Found: fmt.Sprint(s.Bottleneck),
			Want:  "none with --method " + s.Method,
		}
	}
	if s.InitFrom != "" && s.Init == "" && s.InitText == "" {
		if !slices.Contains(InitFroms, s.InitFrom) {
			return &SettingError{Flag: "init-from", Found: s.InitFrom, Want: "one of " + strings.Join(InitFroms, ", ")}
		}
	} else if s.InitFrom != "" {
		return &SettingError{Flag: "init-from", Found: s.InitFrom, Want: "nothing beside --init or --init-text"}
	}
	if s.Init != "" && s.InitText != "" {
		return &SettingError{Flag: "init-text", Found: s.InitText, Want: "nothing beside --init"}
	}
	if from := s.initFrom(); !slices.Contains(method.Prompt.Starts, from) {
		flag := "init-from"
		switch from {
		case prompt.StartFile:
			flag, from = "init", s.Init
		case prompt.StartText:
			flag, from = "init-text", s.InitText
		}
		return &SettingError{
			Flag:  flag,
			Found: from,
			Want:  strings.Join(method.initFroms(), " or ") + " with --method " + s.Method,
		}
	}
	return nil
}

// initFroms are the values that Settings.InitFrom may have with a prompt's method.
func (m Method) initFroms() []string {
	return slices.DeleteFunc(slices.Clone(InitFroms), func(from string) bool {
		return !slices.Contains(m.Prompt.Starts, from)
	})
}

// initFrom is where the parameters of a valid method start from: "model" for full fine-tuning, else
// a start of package prompt.
func (s Settings) initFrom() string {
	method, err := LookupMethod(s.Method)
	switch {
	case err != nil:
		return ""
	case method.Prompt == nil:
		return "model"
	case s.Init != "":
		return prompt.StartFile
	case s.InitText != "":
		return prompt.StartText
	case s.InitFrom != "":
		return s.InitFrom
	}
	return method.Prompt.DefaultStart
}

// initialize makes the state before the first step and names the job.
func (j *Job) initialize(s Settings, m *checkpoint.Model) error {
	params, err := j.parameters(s, m)
	if err != nil {
		return err
	}
	j.Spec.Parameters = len(params)
	j.Initial = optim.NewState(params)
	j.InitialBlob = ids.Blob{Digest: j.Initial.Digest(), Size: int64(j.Spec.StateSize())}
	j.Spec.InitDigest = j.InitialBlob.Digest.String()
	var nonce [4]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return fmt.Errorf("name the job: %w", err)
	}
	spec := ids.Sum(j.Spec.Canonical())
	j.ID = hex.EncodeToString(spec[:4]) + "-" + hex.EncodeToString(nonce[:])
	return nil
}

// parameters are those that training starts from.
func (j *Job) parameters(s Settings, m *checkpoint.Model) ([]float32, error) {
	if j.Spec.FineTunes() {
		return j.allWeights(m)
	}
	conf := j.Spec.Prompt()
	if err := conf.Validate(); err != nil {
		return nil, err
	}
	return j.firstParams(s, conf, m)
}

func (j *Job) firstParams(s Settings, conf prompt.Config, m *checkpoint.Model) (params []float32, err error) {
	start := prompt.Start{Seed: s.Seed, Std: s.InitStd}
	switch from := s.initFrom(); from {
	case prompt.StartGaussian:
	case prompt.StartUniform:
		start.Std, start.Uniform = 0, uniformRange
	case prompt.StartFile:
		p, err := checkpoint.ReadPrompt(s.Init)
		if err != nil {
			return nil, err
		}
		if params, err = conf.Continue(p, start); err != nil {
			return nil, fmt.Errorf("--init %s: %w", s.Init, err)
		}
		return params, nil
	default:
		tokens, err := j.startTokens(s, from)
		if err != nil {
			return nil, err
		}
		if start.Rows, err = rowsOf(m, j.vocabulary, conf, tokens); err != nil {
			return nil, err
		}
	}
	return conf.Init(start)
}

// startTokens are the tokens behind each row that the prompt starts from: the row is the mean of
// their embeddings.
func (j *Job) startTokens(s Settings, from string) ([][]int32, error) {
	rows := make([][]int32, 0, s.PromptLength)
	switch from {
	case prompt.StartText:
		tokens := j.Tokenizer.Encode(s.InitText)
		if len(tokens) == 0 {
			return nil, fmt.Errorf("--init-text %q: has no tokens, want at least one", s.InitText)
		}
		for i := range s.PromptLength { // repeated to the length, or cut to it
			rows = append(rows, tokens[i%len(tokens):][:1])
		}
		return rows, nil
	case prompt.StartLabels:
		labels, err := j.labels()
		if err != nil {
			return nil, err
		}
		for _, label := range labels {
			tokens := j.Tokenizer.Encode(label)
			if len(tokens) == 0 {
				return nil, fmt.Errorf("label %q of %s has no tokens, want at least one", label, j.Spec.Task)
			}
			if len(rows) < s.PromptLength {
				rows = append(rows, tokens)
			}
		}
	}
	for _, id := range prompt.Sample(min(commonTokens, j.Tokenizer.VocabSize()), s.PromptLength-len(rows), s.Seed) {
		rows = append(rows, []int32{int32(id)})
	}
	return rows, nil
}

// labels are the targets of the job's tasks.
func (j *Job) labels() ([]string, error) {
	tasks, err := ParseTasks(j.Spec.Task)
	if err != nil {
		return nil, err
	}
	var labels []string
	for _, task := range tasks {
		for _, l := range task.Labels(dataset.Template(j.Spec.Template)) {
			if !slices.Contains(labels, l) {
				labels = append(labels, l)
			}
		}
	}
	if len(labels) == 0 {
		return nil, fmt.Errorf("--init-from labels: task %s answers with spans of its text and has no labels; "+
			"want vocabulary, gaussian or uniform, or --init-text", j.Spec.Task)
	}
	return labels, nil
}

// rowsOf looks rows up in the model's table of embeddings, of vocabulary rows: c×e.
func rowsOf(m *checkpoint.Model, vocabulary int, conf prompt.Config, tokens [][]int32) ([]float32, error) {
	var table []float32
	var err error
	for _, name := range []string{"shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"} {
		if m.Has(name) {
			table, err = m.Float32(name, vocabulary, conf.Dim)
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("embeddings to start from: %w", err)
	}
	if table == nil {
		return nil, errors.New("embeddings to start from: found no shared.weight in the model")
	}
	rows := make([]float32, conf.Length*conf.Dim)
	for i, ids := range tokens {
		for k := range conf.Dim {
			var sum float64
			for _, id := range ids {
				sum += float64(table[int(id)*conf.Dim+k])
			}
			rows[i*conf.Dim+k] = float32(sum / float64(len(ids)))
		}
	}
	return rows, nil
}
