package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Group is a heading of the help and the flags under it. Each method binds a variable. The value of
// the variable now is the default; a value on the command line passes every check before it is
// stored. The usage text names its argument in back quotes: "read the prompt from `FILE`".
type Group struct {
	title string
	cmd   *Command
	flags []*Flag
}

// Flag is one bound flag.
type Flag struct {
	flag     *pflag.Flag
	shown    string // the default in help; "": the value itself
	required bool
}

// Required makes it wrong usage to omit the flag.
func (f *Flag) Required() *Flag { f.required = true; return f }

// DefaultText is the default that help shows, where the value itself says too little: the embedded
// model rather than "".
func (f *Flag) DefaultText(text string) *Flag { f.shown = text; return f }

// Int binds a whole number.
func (g *Group) Int(dst *int, name, usage string, checks ...Check[int]) *Flag {
	return bind(g, dst, name, usage, "N", strconv.Itoa, func(s string) (int, error) {
		v, err := strconv.Atoi(s)
		return v, orWant(err, "want a whole number")
	}, checks)
}

// Int64 binds a whole number.
func (g *Group) Int64(dst *int64, name, usage string, checks ...Check[int64]) *Flag {
	return bind(g, dst, name, usage, "N", func(v int64) string { return strconv.FormatInt(v, 10) },
		func(s string) (int64, error) {
			v, err := strconv.ParseInt(s, 10, 64)
			return v, orWant(err, "want a whole number")
		}, checks)
}

// Uint64 binds a whole number that is not negative, such as a seed.
func (g *Group) Uint64(dst *uint64, name, usage string, checks ...Check[uint64]) *Flag {
	return bind(g, dst, name, usage, "N", func(v uint64) string { return strconv.FormatUint(v, 10) },
		func(s string) (uint64, error) {
			v, err := strconv.ParseUint(s, 10, 64)
			return v, orWant(err, "want a whole number from 0 to 18446744073709551615")
		}, checks)
}

// Float binds a finite number.
func (g *Group) Float(dst *float64, name, usage string, checks ...Check[float64]) *Flag {
	return bind(g, dst, name, usage, "X", func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) },
		func(s string) (float64, error) {
			v, err := strconv.ParseFloat(s, 64)
			if err == nil && (math.IsNaN(v) || math.IsInf(v, 0)) {
				err = strconv.ErrRange
			}
			return v, orWant(err, "want a finite number")
		}, checks)
}

// String binds a text.
func (g *Group) String(dst *string, name, usage string, checks ...Check[string]) *Flag {
	return bind(g, dst, name, usage, "TEXT", func(v string) string { return v },
		func(s string) (string, error) { return s, nil }, checks)
}

// Choice binds one of the given values, matched exactly.
func (g *Group) Choice(dst *string, name, usage string, values ...string) *Flag {
	return bind(g, dst, name, usage, strings.Join(values, "|"), func(v string) string { return v },
		func(s string) (string, error) { return s, nil }, []Check[string]{OneOf(values...)})
}

// Duration binds a length of time such as 500ms, 30s or 5m.
func (g *Group) Duration(dst *time.Duration, name, usage string, checks ...Check[time.Duration]) *Flag {
	return bind(g, dst, name, usage, "TIME", time.Duration.String, func(s string) (time.Duration, error) {
		v, err := time.ParseDuration(s)
		return v, orWant(err, "want a time such as 500ms, 30s or 5m")
	}, checks)
}

// Bool binds a switch: --name turns it on, --name=false off.
func (g *Group) Bool(dst *bool, name, usage string) *Flag {
	g.cmd.set.BoolVar(dst, name, *dst, usage)
	return g.add(name)
}

// Strings binds a list. The flag may be repeated, and each value may hold several items with commas
// between them. Each item passes the checks. The first value given replaces the default.
func (g *Group) Strings(dst *[]string, name, usage string, checks ...Check[string]) *Flag {
	first := true
	return bind(g, dst, name, usage, "TEXT,...", func(v []string) string { return strings.Join(v, ",") },
		func(s string) ([]string, error) {
			var list []string
			if !first {
				list = *dst
			}
			for item := range strings.SplitSeq(s, ",") {
				for _, check := range checks {
					if err := check(item); err != nil {
						return nil, err
					}
				}
				list = append(list, item)
			}
			first = false
			return list, nil
		}, nil)
}

// Names are the names of the group's flags, in the order in which they were added.
func (g *Group) Names() []string {
	names := make([]string, len(g.flags))
	for i, f := range g.flags {
		names[i] = f.flag.Name
	}
	return names
}

func (g *Group) add(name string) *Flag {
	f := &Flag{flag: g.cmd.set.Lookup(name)}
	g.flags = append(g.flags, f)
	return f
}

// bind adds a flag whose value is parsed and checked before it is stored, so that a variable never
// holds what the checks refuse.
func bind[T any](g *Group, dst *T, name, usage, metavar string, format func(T) string, parse func(string) (T, error),
	checks []Check[T]) *Flag {
	g.cmd.set.Var(&value[T]{dst: dst, metavar: metavar, format: format, parse: parse, checks: checks}, name, usage)
	return g.add(name)
}

// value is a pflag.Value over a variable of the caller's.
type value[T any] struct {
	dst     *T
	metavar string
	format  func(T) string
	parse   func(string) (T, error)
	checks  []Check[T]
}

func (v *value[T]) String() string { return v.format(*v.dst) }
func (v *value[T]) Type() string   { return v.metavar }

func (v *value[T]) Set(text string) error {
	parsed, err := v.parse(text)
	if err != nil {
		return &badValue{want: err.Error()}
	}
	for _, check := range v.checks {
		if err := check(parsed); err != nil {
			return &badValue{want: err.Error()}
		}
	}
	*v.dst = parsed
	return nil
}

// badValue marks errors of our checks among those of pflag.
type badValue struct{ want string }

func (e *badValue) Error() string { return e.want }

func orWant(err error, want string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s", want)
}
