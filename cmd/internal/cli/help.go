package cli

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// maxWidth is the widest that help is set: longer lines are hard to read.
const maxWidth = 100

// Help is the command's help, no line wider than width columns where words allow.
func (c *Command) Help(width int) string {
	var b strings.Builder
	const usage = "Usage: "
	b.WriteString(usage)
	writeWrapped(&b, c.Name+" "+c.Synopsis, len(usage), width)
	b.WriteString("\n")
	writeWrapped(&b, c.About, 0, width)

	groups := append(c.groups[:len(c.groups):len(c.groups)], &Group{title: "Help", flags: []*Flag{
		{flag: c.set.Lookup("help")}, {flag: c.set.Lookup("version")},
	}})
	column := 0
	for _, g := range groups {
		for _, f := range g.flags {
			if n := utf8.RuneCountInString(f.head()); n <= maxHead {
				column = max(column, n)
			}
		}
	}
	column += 2
	for _, g := range groups {
		b.WriteString("\n" + g.title + ":\n")
		for _, f := range g.flags {
			head := f.head()
			b.WriteString(head)
			if n := utf8.RuneCountInString(head); n+2 <= column {
				b.WriteString(strings.Repeat(" ", column-n))
			} else {
				b.WriteString("\n" + strings.Repeat(" ", column))
			}
			writeWrapped(&b, f.text(), column, width)
		}
	}
	for paragraph := range strings.SplitSeq(strings.TrimSpace(c.Notes), "\n\n") {
		if paragraph != "" {
			b.WriteString("\n")
			writeWrapped(&b, paragraph, 0, width)
		}
	}
	if len(c.Examples) == 1 {
		b.WriteString("\nExample:\n")
	} else if len(c.Examples) > 1 {
		b.WriteString("\nExamples:\n")
	}
	for i, e := range c.Examples {
		if i > 0 {
			b.WriteString("\n")
		}
		if e.Text != "" {
			b.WriteString("  ")
			writeWrapped(&b, e.Text, 2, width)
		}
		for line := range strings.SplitSeq(e.Command, "\n") {
			b.WriteString("    " + line + "\n")
		}
	}
	return b.String()
}

// maxHead is the widest flag that stands on one line with its text; a wider one gets its own.
const maxHead = 32

// head is a flag as one types it: "  -o, --out DIR".
func (f *Flag) head() string {
	head := "      --" + f.flag.Name
	if f.flag.Shorthand != "" {
		head = "  -" + f.flag.Shorthand + ", --" + f.flag.Name
	}
	if metavar, _ := pflag.UnquoteUsage(f.flag); metavar != "" {
		head += " " + metavar
	}
	return head
}

// text is what the flag does, and its default.
func (f *Flag) text() string {
	_, usage := pflag.UnquoteUsage(f.flag)
	switch {
	case f.required:
		return usage + " (required)"
	case f.shown != "":
		return usage + " (default: " + f.shown + ")"
	case f.flag.Value.Type() == "bool" && f.flag.DefValue == "false":
		return usage
	case f.flag.DefValue == "":
		return usage + " (default: none)"
	}
	return usage + " (default " + f.flag.DefValue + ")"
}

// Wrap breaks a paragraph into lines of at most width columns, each with its newline.
func Wrap(text string, width int) string {
	var b strings.Builder
	writeWrapped(&b, text, 0, width)
	return b.String()
}

// writeWrapped writes the text's words and a final newline. The first line starts where the caller
// left off, at column indent; the rest are indented by as much.
func writeWrapped(b *strings.Builder, text string, indent, width int) {
	at := indent
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		if i > 0 {
			if at+1+n > width {
				b.WriteString("\n" + strings.Repeat(" ", indent))
				at = indent
			} else {
				b.WriteByte(' ')
				at++
			}
		}
		b.WriteString(word)
		at += n
	}
	b.WriteByte('\n')
}

// Width is the width for text on w: the terminal's width, or COLUMNS if that is set, at least 50
// and at most 100 columns.
func Width(w io.Writer) int {
	width := maxWidth
	if f, ok := w.(*os.File); ok {
		if cols, _, err := term.GetSize(int(f.Fd())); err == nil && cols > 0 {
			width = cols
		}
	}
	if cols, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && cols > 0 {
		width = cols
	}
	return min(max(width, 50), maxWidth)
}
