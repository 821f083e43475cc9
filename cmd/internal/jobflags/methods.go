package jobflags

import (
	"slices"
	"strings"

	"github.com/dptune/dpt/coordinator/job"
)

// methods returns the methods sorted by name, as --method lists its choices.
func methods() []job.Method {
	list := job.Methods()
	slices.SortFunc(list, func(a, b job.Method) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// methodHelp describes --method.
func methodHelp() string {
	var parts []string
	for _, m := range methods() {
		parts = append(parts, m.Name+" ("+m.Summary+")")
	}
	return "what is trained: " + enumerate(parts, "or")
}

// bottleneckHelp describes --bottleneck and its default, which depends on the method.
func bottleneckHelp() (text, defaultText string) {
	var meanings, defaults []string
	for _, m := range methods() {
		if m.Prompt == nil || m.Prompt.Bottleneck == nil {
			continue
		}
		b := m.Prompt.Bottleneck
		meanings = append(meanings, b.Meaning)
		defaults = append(defaults, m.Name+" "+b.DefaultText)
	}
	return "inner dimension: " + strings.Join(meanings, ", "), strings.Join(defaults, ", ")
}

// initFromDefault describes the default of --init-from, which depends on the method.
func initFromDefault() string {
	byStart := map[string][]string{}
	for _, m := range methods() {
		if m.Prompt != nil {
			byStart[m.Prompt.DefaultStart] = append(byStart[m.Prompt.DefaultStart], m.Name)
		}
	}
	var parts []string
	for _, from := range job.InitFroms {
		if names := byStart[from]; names != nil {
			parts = append(parts, from+" for "+enumerate(names, "and"))
		}
	}
	return strings.Join(parts, ", ")
}

// enumerate lists parts with commas and a conjunction before the last.
func enumerate(parts []string, conjunction string) string {
	last := len(parts) - 1
	if last < 1 {
		return strings.Join(parts, "")
	}
	return strings.Join(parts[:last], ", ") + " " + conjunction + " " + parts[last]
}
