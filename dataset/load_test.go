package dataset

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestMalformedLines(t *testing.T) {
	for _, c := range []struct {
		task        string
		edit        [2]string // replaces the first in the task's good line by the second
		want, found string    // parts of the error
	}{
		{"boolq", [2]string{`{"question"`, `["question"`}, "want a JSON object", `line starts with`},
		{"boolq", [2]string{`true}`, `true`}, "unexpected end", "not a JSON object"},
		{"boolq", [2]string{`true}`, `true}x`}, "invalid character", "not a JSON object"},
		{"boolq", [2]string{`far.`, "far\xff"}, "want a JSON object", "not valid UTF-8"},
		{"boolq", [2]string{`"passage"`, `"Passage"`}, "want a string", `field "passage" is missing`},
		{"boolq", [2]string{`"Hill -- It is far."`, `12.5`}, "want a string", `field "passage" is the number 12.5`},
		{"boolq", [2]string{`"Hill -- It is far."`, `null`}, "want a string", `field "passage" is null`},
		{"boolq", [2]string{`7`, `7.5`}, "want an integer", `field "idx" is the number 7.5`},
		{"boolq", [2]string{`7`, `"7"`}, "want an integer", `field "idx" is the string "7"`},
		{"boolq", [2]string{`true`, `2`}, "want true or false", `field "label" is the number 2`},
		{"boolq", [2]string{`true`, `"yes"`}, "want true or false", `field "label" is the string "yes"`},
		{"boolq", [2]string{`, "label": true`, ``}, "want true or false", `field "label" is missing`},
		{"boolq", [2]string{`true`, `null`}, "want true or false", `field "label" is missing`},
		{"cb", [2]string{`"neutral"`, `"maybe"`}, "want one of entailment, contradiction, neutral",
			`field "label" is the string "maybe"`},
		{"cb", [2]string{`"neutral"`, `1`}, "want a string", `field "label" is the number 1`},
		{"copa", [2]string{`"effect"`, `"reason"`}, `want "cause" or "effect"`,
			`field "question" is the string "reason"`},
		{"copa", [2]string{`"label": 0`, `"label": 2`}, "want 0 or 1", `field "label" is the number 2`},
		{"multirc", [2]string{`"text": "Ann", `, ``}, "want a string",
			`field "passage.questions[0].answers[0].text" is missing`},
		{"multirc", [2]string{`"label": 0`, `"label": []`}, "want 0 or 1",
			`field "passage.questions[0].answers[1].label" is an array`},
		{"multirc", [2]string{`"questions"`, `"question"`}, "want an array of objects",
			`field "passage.questions" is missing`},
		{"multirc", [2]string{`{"text": "Ann", "idx": 5, "label": 1}`, `"Ann"`}, "want an object",
			`field "passage.questions[0].answers[0]" is the string "Ann"`},
		{"record", [2]string{`"start": 8`, `"start": 800`}, "want a character of the passage, 0 to 72",
			`field "passage.entities[0].start" is 800`},
		{"record", [2]string{`"start": 8`, `"start": -1`}, "want a character of the passage",
			`field "passage.entities[0].start" is -1`},
		{"record", [2]string{`"end": 10`, `"end": 7`}, `want at least "start", which is 8`,
			`field "passage.entities[0].end" is 7`},
		{"record", [2]string{`"answers"`, `"replies"`}, "want at least one answer",
			`field "qas[0].answers" is missing`},
		{"record", [2]string{`{"text"`, `[{"text"`}, "", "not a JSON object"},
		{"rte", [2]string{`"entailment"`, `"neutral"`}, "want one of entailment, not_entailment",
			`field "label" is the string "neutral"`},
		{"wic", [2]string{`"start1": 4`, `"start1": 15`}, "want a character of the sentence, 0 to 14",
			`field "start1" is 15`},
		{"wic", [2]string{`"end2": 9`, `"end2": 17`}, "starts at 4 in 16 characters", `field "end2" is 17`},
		{"wic", [2]string{`"end1": 8`, `"end1": 4`}, "starts at 4", `field "end1" is 4`},
		{"wsc", [2]string{`"span2_index": 5`, `"span2_index": 7`}, "want a word of the text, 0 to 6",
			`field "target.span2_index" is 7`},
		{"wsc", [2]string{`"span1_index": 2`, `"span1_index": -2`}, "want a word of the text, 0 to 6",
			`field "target.span1_index" is -2`},
		{"wsc", [2]string{`"span2_text": "they"`, `"span2_text": "she"`}, "want a word of the text",
			`field "target.span2_text" is the string "she"`},
		{"wsc", [2]string{`"span1_text": "The girls"`, `"span1_text": ""`}, "want words of the text",
			`field "target.span1_text" is empty`},
		{"wsc", [2]string{`"target": {`, `"target": 1, "x": {`}, "want an object", `field "target" is the number 1`},
	} {
		good := lineOf[c.task]
		bad := strings.Replace(good, c.edit[0], c.edit[1], 1)
		if bad == good {
			t.Errorf("%s: edit %q changes nothing", c.task, c.edit)
		}
		_, err := loadLines(t, c.task, "train", DPT, good, "", bad)
		if err == nil {
			t.Errorf("%s with %q is accepted, want an error", c.task, c.edit[1])
			continue
		}
		place := lookup(t, c.task).Dir() + "/train.jsonl:3: "
		for _, part := range []string{place, c.want, c.found} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s with %q: error is\n%v, want %q in it", c.task, c.edit[1], err, part)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("error has several lines: %q", err)
		}
	}
}

func TestLabelVariants(t *testing.T) {
	for value, want := range map[string]string{
		`true`: "1", `false`: "0", `1`: "1", `0`: "0", `"True"`: "1", `"false"`: "0",
	} {
		s := mustLoadLines(t, "boolq", "train", DPT, strings.Replace(lineOf["boolq"], "true", value, 1))
		if got := s.Train[0].Target; got != want {
			t.Errorf("label %s gives the target %q, want %q", value, got, want)
		}
	}
}

func TestUnlabeledTestSplit(t *testing.T) {
	for _, c := range []struct{ task, remove string }{
		{"boolq", `, "label": true`}, {"cb", `"label": "neutral", `}, {"copa", `"label": 0, `},
		{"rte", `"label": "entailment", `}, {"wic", `"label": false,`}, {"wsc", `, "label": true`},
		{"multirc", `, "label": 1`},
	} {
		line := strings.Replace(lineOf[c.task], c.remove, "", 1)
		line = strings.Replace(line, `, "label": 0`, "", 1)
		s := mustLoadLines(t, c.task, "test", T5, line)
		if s.Labeled || len(s.Train) != 0 || len(s.Eval) == 0 || s.Eval[0].Target != "" || s.Eval[0].Label != -1 {
			t.Errorf("%s: split is %+v, want one without labels", c.task, s)
		}
		if _, err := s.Score(make([]string, len(s.Eval))); err == nil {
			t.Errorf("%s: a split without labels is scored, want an error", c.task)
		}
		if _, err := loadLines(t, c.task, "test", T5, line, lineOf[c.task]); err == nil {
			t.Errorf("%s: a label after none is accepted, want an error", c.task)
		}
		if _, err := loadLines(t, c.task, "test", T5, lineOf[c.task], line); err == nil {
			t.Errorf("%s: no label after one is accepted, want an error", c.task)
		}
		if s := mustLoadLines(t, c.task, "test", T5, lineOf[c.task]); !s.Labeled {
			t.Errorf("%s: labels of a test split are ignored, want them used", c.task)
		}
	}
	empty := strings.Replace(lineOf["record"], `"answers": [`, `"answers": [], "x": [`, 1)
	if s := mustLoadLines(t, "record", "test", DPT, empty); s.Labeled || len(s.Eval) != 1 || s.Eval[0].Answers != nil {
		t.Errorf("split is %+v, want one query without answers", s)
	}
}

func TestRepeatedIdx(t *testing.T) {
	s := mustLoadLines(t, "boolq", "train", DPT, lineOf["boolq"], lineOf["boolq"], lineOf["boolq"])
	var ids []string
	for _, e := range s.Train {
		ids = append(ids, e.ID)
	}
	if want := []string{"7", "7#2", "7#3"}; !slices.Equal(ids, want) {
		t.Errorf("IDs are %q, want %q", ids, want)
	}
}

func TestLineEnds(t *testing.T) {
	want := mustLoadLines(t, "boolq", "train", DPT, lineOf["boolq"], lineOf["boolq"])
	for name, text := range map[string]string{
		"newline at the end": lineOf["boolq"] + "\n" + lineOf["boolq"] + "\n",
		"carriage returns":   lineOf["boolq"] + "\r\n" + lineOf["boolq"] + "\r\n",
		"blank lines":        "\n\n" + lineOf["boolq"] + "\n  \n" + lineOf["boolq"] + "\n\n",
		"byte order mark":    "\ufeff" + lineOf["boolq"] + "\n" + lineOf["boolq"],
	} {
		got := mustLoadLines(t, "boolq", "train", DPT, text)
		if len(got.Train) != 2 || got.Train[1].Source != want.Train[1].Source {
			t.Errorf("%s: training examples are %+v, want %+v", name, got.Train, want.Train)
		}
	}
}

func TestEmptySplit(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":      "",
		"blank":        "\n \n",
		"no questions": `{"idx": 1, "passage": {"text": "x", "questions": []}}`,
	} {
		_, err := loadLines(t, "multirc", "val", DPT, text)
		if err == nil || !strings.Contains(err.Error(), "MultiRC/val.jsonl has no examples") {
			t.Errorf("%s: error is %v, want one that says that there are no examples", name, err)
		}
	}
	untrue := strings.Replace(lineOf["wsc"], "true", "false", 1)
	_, err := loadLines(t, "wsc", "train", DPT, untrue)
	if err == nil || !strings.Contains(err.Error(), "nothing to train on") {
		t.Errorf("error is %v, want one that says that there is nothing to train on", err)
	}
	if _, err := loadLines(t, "wsc", "val", DPT, untrue); err != nil {
		t.Errorf("validation data without true examples gives %v, want none", err)
	}
}

func TestLongLines(t *testing.T) {
	const longest = 300 << 10 // more than the reader's buffer
	good := strings.Replace(lineOf["boolq"], "Hill", strings.Repeat("h", longest-len(lineOf["boolq"])+len("Hill")), 1)
	if len(good) != longest {
		t.Fatalf("test line has %d bytes, want %d", len(good), longest)
	}
	task := lookup(t, "boolq")
	for _, end := range []string{"", "\n", "\r\n"} {
		s, err := read(strings.NewReader(good+end), "f", task, "val", DPT, longest)
		if err != nil || len(s.Eval[0].Source) < longest/2 {
			t.Errorf("line of %d bytes that ends with %q gives %v, want an example", longest, end, err)
		}
	}
	_, err := read(strings.NewReader(lineOf["boolq"]+"\n"+good+"h"), "f", task, "val", DPT, longest)
	if err == nil || !strings.Contains(err.Error(), "f:2: line is longer than 307200 bytes") {
		t.Errorf("error is %v, want one about the length of line 2", err)
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

func TestReadFailure(t *testing.T) {
	broken := errors.New("disk on fire")
	if _, err := read(failingReader{broken}, "f", lookup(t, "rte"), "val", DPT, maxLine); !errors.Is(err, broken) {
		t.Errorf("error is %v, want %v in its chain", err, broken)
	}
}

func TestDirectories(t *testing.T) {
	data := &fstest.MapFile{Data: []byte(lineOf["boolq"])}
	task := lookup(t, "boolq")
	for _, dir := range []string{"BoolQ", "boolq", "BOOLQ"} {
		fsys := fstest.MapFS{dir + "/train.jsonl": data}
		if _, err := Load(fsys, task, "train", ""); err != nil {
			t.Errorf("directory %s: %v", dir, err)
		}
		if !HasSplit(fsys, task, "train") || HasSplit(fsys, task, "validation") || HasSplit(fsys, task, "dev") {
			t.Errorf("directory %s: HasSplit does not tell train from validation", dir)
		}
	}
	// A file of the task's name is no directory.
	if HasSplit(fstest.MapFS{"boolq": data, "BoolQ.zip": data}, task, "train") {
		t.Error("a file counts as a directory")
	}
	_, err := Load(fstest.MapFS{"BoolQ/train.jsonl": data}, task, "validation", DPT)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "BoolQ/val.jsonl") {
		t.Errorf("error is %v, want one that says that BoolQ/val.jsonl does not exist", err)
	}
	for name, load := range map[string]func() error{
		"no directory":  func() error { _, err := Load(fstest.MapFS{}, task, "train", DPT); return err },
		"no task":       func() error { _, err := Load(fstest.MapFS{}, Task{}, "train", DPT); return err },
		"bad split":     func() error { _, err := Load(fstest.MapFS{}, task, "dev", DPT); return err },
		"bad template":  func() error { _, err := Load(fstest.MapFS{}, task, "train", "x"); return err },
		"unknown task":  func() error { _, err := Lookup("squad"); return err },
		"no such drive": func() error { _, err := OpenDir(filepath.Join(t.TempDir(), "none")); return err },
	} {
		if err := load(); err == nil || !strings.Contains(err.Error(), "want") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error is %v, want one line that says what was wanted", name, err)
		}
	}
}

func TestErrorsNameTheWholePath(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "rte"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "rte", "train.jsonl")
	if err := os.WriteFile(path, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	fsys, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = Load(fsys, lookup(t, "RTE"), "train", DPT); err == nil || !strings.HasPrefix(err.Error(), path+":1: ") {
		t.Errorf("error is %v, want it to start with %s:1", err, path)
	}
	_, err = Load(fsys, lookup(t, "RTE"), "val", DPT)
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "rte", "val.jsonl")) {
		t.Errorf("error is %v, want the whole path of val.jsonl in it", err)
	}
	if _, err := OpenDir(path); err == nil || !strings.Contains(err.Error(), "is a file") {
		t.Errorf("error is %v, want one that says that it is a file", err)
	}
}

func TestDigest(t *testing.T) {
	seen := map[[32]byte]string{}
	add := func(name string, s *Split) {
		t.Helper()
		if other, ok := seen[s.Digest]; ok {
			t.Errorf("digests of %s and %s agree", name, other)
		}
		seen[s.Digest] = name
	}
	base := mustLoadLines(t, "rte", "train", DPT, lineOf["rte"], lineOf["rte"])
	add("base", base)
	add("T5", mustLoadLines(t, "rte", "train", T5, lineOf["rte"], lineOf["rte"]))
	add("split", mustLoadLines(t, "rte", "val", DPT, lineOf["rte"], lineOf["rte"]))
	add("bytes", mustLoadLines(t, "rte", "train", DPT, lineOf["rte"], lineOf["rte"], ""))
	add("task", mustLoadLines(t, "cb", "train", DPT, lineOf["rte"], lineOf["rte"]))
	for _, k := range []int{1, 2} {
		for seed := range uint64(2) {
			few, err := base.KShot(k, seed)
			if err != nil {
				t.Fatal(err)
			}
			add("few", few)
		}
	}
	if again := mustLoadLines(t, "rte", "train", "", lineOf["rte"], lineOf["rte"]); again.Digest != base.Digest {
		t.Error("digests of two readings differ")
	}
}

// The real files are those of FewGLUE. They are not part of the repository.
func TestFewGLUE(t *testing.T) {
	const dir = "../../shared/data/fewglue"
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the FewGLUE files are not there: %v", err)
	}
	fsys, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]int{ // training and evaluation examples
		"boolq": {32, 32}, "cb": {32, 32}, "copa": {32, 32}, "multirc": {154, 154},
		"record": {44, 32}, "rte": {32, 32}, "wic": {32, 32}, "wsc": {32, 32},
	} {
		for _, tmpl := range []Template{DPT, T5} {
			s, err := Load(fsys, lookup(t, name), "train", tmpl)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got := [2]int{len(s.Train), len(s.Eval)}; got != want {
				t.Errorf("%s has %v examples, want %v", name, got, want)
			}
			scoresItself(t, s)
		}
		if HasSplit(fsys, lookup(t, name), "val") {
			t.Errorf("%s has a validation split, want none", name)
		}
	}
}

// scoresItself checks that predicting the targets scores 100. For WSC, naming the noun is right for
// true examples only.
func scoresItself(t *testing.T, s *Split) {
	t.Helper()
	var targets []string
	truths := 0
	for _, e := range s.Eval {
		targets = append(targets, e.Target)
		truths += max(e.Label, 0)
	}
	m, err := s.Score(targets)
	if err != nil {
		t.Errorf("%s: %v", s.Task, err)
		return
	}
	want := 100.0
	if s.Task.Name() == "wsc" {
		want = percent(truths, len(s.Eval))
	}
	if s.Task.Name() != "cb" && m.Primary() != want { // CB's F1 is below 100 where a class is missing
		t.Errorf("%s %s scores %v on its own targets, want %v", s.Task, s.Name, m, want)
	}
}
