package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// Command is one program or one subcommand: its flags, its help and its version.
type Command struct {
	Name     string    // as the user types it: "dpt-coord", "dpt score"
	Synopsis string    // what follows the name in the usage line: "--model DIR < sources.jsonl"
	About    string    // one paragraph
	Notes    string    // further paragraphs, shown after the flags; may be empty
	Examples []Example // shown last
	Engines  []string  // compute engines of this build, for --version
	MaxArgs  int       // positional arguments allowed; the rest are stray

	set     *pflag.FlagSet
	groups  []*Group
	help    bool
	version bool
}

// Example is a command line that works, with its purpose.
type Example struct {
	Text    string
	Command string
}

// NewCommand returns a command without flags of its own; --help and --version are always there.
func NewCommand(name, synopsis, about string) *Command {
	c := &Command{Name: name, Synopsis: synopsis, About: about}
	c.set = pflag.NewFlagSet(name, pflag.ContinueOnError)
	c.set.SetOutput(io.Discard)
	c.set.Usage = func() {}
	c.set.BoolVarP(&c.help, "help", "h", false, "print this help and exit")
	c.set.BoolVar(&c.version, "version", false, "print version, commit, Go version and engines, and exit")
	return c
}

// Group returns the group of flags with this title, and makes it at the first call. Help shows
// groups, and flags within a group, in the order in which they were made.
func (c *Command) Group(title string) *Group {
	for _, g := range c.groups {
		if g.title == title {
			return g
		}
	}
	g := &Group{title: title, cmd: c}
	c.groups = append(c.groups, g)
	return g
}

// Parse reads the arguments (without the program's name) into the bound variables.
//
// The error is a *[UsageError] for a mistake of the user, or a request for help or version. The
// caller returns either unchanged and [Run] handles it.
func (c *Command) Parse(args []string) error {
	err := c.set.Parse(args)
	// Help wins over a mistake elsewhere: the user may be looking for the right flag.
	if c.help || errors.Is(err, pflag.ErrHelp) {
		return &infoRequest{text: c.Help}
	}
	if c.version && err == nil {
		return &infoRequest{text: func(int) string { return VersionText(c.programName(), c.Engines) }}
	}
	if err != nil {
		return c.usageError(c.explain(err))
	}
	if c.set.NArg() > c.MaxArgs {
		stray := c.set.Arg(c.MaxArgs)
		if c.MaxArgs == 0 {
			return c.Usagef("stray argument %s, want flags only", quoteIfNeeded(stray))
		}
		return c.Usagef("stray argument %s, want at most %d", quoteIfNeeded(stray), c.MaxArgs)
	}
	for _, g := range c.groups {
		for _, f := range g.flags {
			if f.required && !f.flag.Changed {
				metavar, usage := pflag.UnquoteUsage(f.flag)
				return c.Usagef("--%s is missing, want --%s %s (%s)", f.flag.Name, f.flag.Name, metavar, usage)
			}
		}
	}
	return nil
}

// Changed reports whether the flag was given on the command line.
func (c *Command) Changed(name string) bool { return c.set.Changed(name) }

// Args are the positional arguments; at most MaxArgs after a Parse without error.
func (c *Command) Args() []string { return c.set.Args() }

// Usagef makes the error for a mistake that shows only when flags are seen together. The text is
// one sentence that names the flag, what was found and what is wanted.
func (c *Command) Usagef(format string, args ...any) error {
	return c.usageError(fmt.Sprintf(format, args...))
}

func (c *Command) usageError(message string) error {
	return &UsageError{Command: c.Name, Message: message}
}

// programName is the executable's name: the first word of the command's.
func (c *Command) programName() string {
	name, _, _ := strings.Cut(c.Name, " ")
	return name
}

// explain turns pflag's error into one of ours: the flag, what was found, what is wanted.
func (c *Command) explain(err error) string {
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	var syntax *pflag.InvalidSyntaxError
	switch {
	case errors.As(err, &unknown):
		if short := unknown.GetSpecifiedShortnames(); short != "" {
			return fmt.Sprintf("unknown flag -%s in -%s", unknown.GetSpecifiedName(), short)
		}
		name := unknown.GetSpecifiedName()
		if near := c.nearest(name); near != "" {
			return fmt.Sprintf("unknown flag --%s, did you mean --%s?", name, near)
		}
		return fmt.Sprintf("unknown flag --%s", name)
	case errors.As(err, &missing):
		metavar, usage := pflag.UnquoteUsage(missing.GetFlag())
		return fmt.Sprintf("--%s has no value, want %s (%s)", missing.GetFlag().Name, metavar, usage)
	case errors.As(err, &invalid):
		var bad *badValue
		if errors.As(err, &bad) {
			return fmt.Sprintf("--%s %s: %s", invalid.GetFlag().Name, quoteIfNeeded(invalid.GetValue()), bad.want)
		}
		return fmt.Sprintf("--%s %s: want true or false", invalid.GetFlag().Name, quoteIfNeeded(invalid.GetValue()))
	case errors.As(err, &syntax):
		return fmt.Sprintf("bad flag %s, want --name or --name=value", quoteIfNeeded(syntax.GetSpecifiedFlag()))
	}
	return err.Error()
}

// nearest is the flag whose name is at most two edits from the given name, "" if there is none.
func (c *Command) nearest(name string) string {
	best, at := "", 3
	c.set.VisitAll(func(f *pflag.Flag) {
		if d := editDistance(name, f.Name); d < at && d < len(f.Name) {
			best, at = f.Name, d
		}
	})
	return best
}

// editDistance is the Levenshtein distance in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// quoteIfNeeded quotes a value that could be misread in a sentence.
func quoteIfNeeded(value string) string {
	if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == '"' || r == 0x7f }) {
		return fmt.Sprintf("%q", value)
	}
	return value
}
