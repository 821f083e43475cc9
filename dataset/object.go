package dataset

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// object is one JSON object of a line. Its accessors check presence and type. The first failure of
// any object of the line stays in err, and later accessors still return zero values, so that a
// parser reads all fields first and checks err once.
type object struct {
	path   string // where it stands in the line, such as "passage.questions[1]", or "" for the line itself
	fields map[string]json.RawMessage
	err    *error
}

// parseLine reads a whole line as one object. Field names are case-sensitive; where two fields have
// the same name, the last one counts.
func parseLine(line []byte) object {
	o := object{err: new(error)}
	if !utf8.Valid(line) {
		*o.err = errors.New("line is not valid UTF-8, want a JSON object")
		return o
	}
	if line[0] != '{' {
		*o.err = fmt.Errorf("line starts with %s, want a JSON object", clip(string(line)))
		return o
	}
	if err := json.Unmarshal(line, &o.fields); err != nil {
		*o.err = fmt.Errorf("line is not a JSON object: %w", err)
	}
	return o
}

// fail keeps the first error of the line.
func (o object) fail(format string, args ...any) {
	if *o.err == nil {
		*o.err = fmt.Errorf(format, args...)
	}
}

// ok reports whether the line has no error so far.
func (o object) ok() bool { return *o.err == nil }

// name is the path of a field, for errors.
func (o object) name(field string) string {
	if o.path == "" {
		return field
	}
	return o.path + "." + field
}

// has reports whether the field is there and not null.
func (o object) has(field string) bool {
	raw, ok := o.fields[field]
	return ok && string(raw) != "null"
}

// get returns a field that must be there. isType judges the value's type by its first byte; want
// describes it for the error.
func (o object) get(field, want string, isType func(first byte) bool) (json.RawMessage, bool) {
	raw, ok := o.fields[field]
	if !ok {
		o.fail("field %q is missing, want %s", o.name(field), want)
		return nil, false
	}
	if !isType(raw[0]) {
		o.mistyped(field, want)
		return nil, false
	}
	return raw, true
}

// mistyped reports a field whose value is not what was wanted.
func (o object) mistyped(field, want string) {
	o.fail("field %q is %s, want %s", o.name(field), describe(o.fields[field]), want)
}

// text returns a string field.
func (o object) text(field string) string {
	raw, ok := o.get(field, "a string", func(c byte) bool { return c == '"' })
	if !ok {
		return ""
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		o.fail("field %q cannot be read as a string: %w", o.name(field), err)
	}
	return s
}

// integer returns an integer field.
func (o object) integer(field string) int {
	const want = "an integer"
	raw, ok := o.get(field, want, isNumber)
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil {
		o.mistyped(field, want)
		return 0
	}
	return n
}

// object returns an object field.
func (o object) object(field string) object {
	inner := object{path: o.name(field), err: o.err}
	if raw, ok := o.get(field, "an object", func(c byte) bool { return c == '{' }); ok {
		if err := json.Unmarshal(raw, &inner.fields); err != nil {
			o.fail("field %q cannot be read as an object: %w", inner.path, err)
		}
	}
	return inner
}

// objects returns a field that is an array of objects.
func (o object) objects(field string) []object {
	raw, ok := o.get(field, "an array of objects", func(c byte) bool { return c == '[' })
	if !ok {
		return nil
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(raw, &elements); err != nil {
		o.fail("field %q cannot be read as an array: %w", o.name(field), err)
		return nil
	}
	objects := make([]object, len(elements))
	for i, e := range elements {
		objects[i] = object{path: fmt.Sprintf("%s[%d]", o.name(field), i), err: o.err}
		if e[0] != '{' {
			o.fail("field %q is %s, want an object", objects[i].path, describe(e))
			return nil
		}
		if err := json.Unmarshal(e, &objects[i].fields); err != nil {
			o.fail("field %q cannot be read as an object: %w", objects[i].path, err)
			return nil
		}
	}
	return objects
}

// binary returns the class of a label that is published as a boolean (BoolQ, WiC, WSC) or as 0 or 1
// (COPA, MultiRC). Both forms are accepted for all of them, and so are the strings "true" and
// "false" of SuperGLUE's first release. -1 means that there is no label.
func (o object) binary(field, want string) int {
	if !o.has(field) {
		return -1
	}
	switch strings.ToLower(string(o.fields[field])) {
	case "0", "false", `"false"`:
		return 0
	case "1", "true", `"true"`:
		return 1
	}
	o.mistyped(field, want)
	return -1
}

// class returns the number of a label that is published as a word, or -1 where there is no label.
func (o object) class(field string, classes []string) int {
	if !o.has(field) {
		return -1
	}
	word := o.text(field)
	for i, c := range classes {
		if c == word {
			return i
		}
	}
	if o.ok() {
		o.mistyped(field, "one of "+strings.Join(classes, ", "))
	}
	return -1
}

func isNumber(c byte) bool { return c == '-' || '0' <= c && c <= '9' }

// describe names a JSON value for an error, on one line and in a few words.
func describe(raw json.RawMessage) string {
	switch c := raw[0]; {
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return "a broken string"
		}
		return "the string " + clip(s)
	case isNumber(c):
		return "the number " + strings.Trim(clip(string(raw)), `"`)
	}
	return string(raw) // true, false or null
}

// clip quotes a text for an error and shortens a long one.
func clip(s string) string {
	const most = 40
	if utf8.RuneCountInString(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(string([]rune(s)[:most])) + "..."
}
