package job

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dptune/dpt/coordinator/coordpb"
	"github.com/dptune/dpt/model/prompt"
)

// Method is what Settings.Method may name: a prompt of package prompt, or full fine-tuning.
type Method struct {
	Name    string         // as flags, specs and results name it
	Title   string         // as tables and figures print it
	Summary string         // what is trained, in a few words for a help text
	Prompt  *prompt.Method // nil for full fine-tuning, which trains no prompt
}

// FineTuning is the method that trains all weights instead of a prompt.
const FineTuning = coordpb.FineTuning

var fineTuning = Method{
	Name:    FineTuning,
	Title:   "Fine-Tuning",
	Summary: "full fine-tuning: all weights of the model, no prompt",
}

// Methods returns the methods in the order in which tables and figures show them: full fine-tuning,
// then the prompts.
func Methods() []Method {
	list := []Method{fineTuning}
	for _, m := range prompt.Methods() {
		list = append(list, Method{Name: m.Name, Title: m.Title, Summary: m.Summary, Prompt: &m})
	}
	return list
}

// MethodNames returns the names of the methods, sorted.
func MethodNames() []string {
	var names []string
	for _, m := range Methods() {
		names = append(names, m.Name)
	}
	slices.Sort(names)
	return names
}

// LookupMethod returns the method of a name.
func LookupMethod(name string) (Method, error) {
	for _, m := range Methods() {
		if m.Name == name {
			return m, nil
		}
	}
	return Method{}, fmt.Errorf("unknown method %q, want one of %s", name, strings.Join(MethodNames(), ", "))
}
