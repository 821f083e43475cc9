package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/dptune/dpt/cmd/internal/cli"
)

func TestTokenize(t *testing.T) {
	long := strings.Repeat("x", 3*readSize)
	in := `"ab"` + "\n" + `""` + "\r\n" + ` "é\u00e9" ` + "\n\"" + long + "\"\n" + `"last, without a newline"`
	out := mustRun(t, strings.NewReader(in), "tokenize", "--tokenizer", "byte")
	rows := jsonLines[[]int32](t, out)
	if len(rows) != 5 {
		t.Fatalf("%d rows, want 5", len(rows))
	}
	// ByT5: a byte's id is its value plus 3.
	for i, want := range []string{"ab", "", "éé", long, "last, without a newline"} {
		got := make([]byte, len(rows[i]))
		for j, id := range rows[i] {
			got[j] = byte(id - 3)
		}
		if string(got) != want {
			t.Errorf("row %d is %.40q, want %.40q", i, got, want)
		}
	}
	stdin := strings.NewReader("\"a\"\n\"\"\n")
	if out := mustRun(t, stdin, "tokenize", "--tokenizer", "byte", "--eos"); out != "[100,1]\n[1]\n" {
		t.Errorf("with --eos: %q, want [100,1] and [1]", out)
	}
	if out := mustRun(t, strings.NewReader(`""`), "tokenize", "--tokenizer", "byte"); out != "[]\n" {
		t.Errorf("empty string: %q, want []", out)
	}
}

// What was answered before a bad line comes out.
func TestTokenizeAnswersBeforeABadLine(t *testing.T) {
	code, out, errs := dpt(t, strings.NewReader("\"a\"\nx\n\"b\"\n"), "tokenize", "--tokenizer", "byte")
	if code != 1 || out != "[100]\n" || !strings.Contains(errs, "line 2") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
}

// Endless input is answered line by line, and an interrupt ends the wait for more.
func TestTokenizeStreams(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	inReader, in := io.Pipe()
	outReader, out := io.Pipe()
	code := make(chan int)
	var errs strings.Builder
	go func() {
		code <- cli.Run(ctx, "dpt tokenize", run, []string{"tokenize", "--tokenizer", "byte"},
			cli.IO{In: inReader, Out: out, Err: &errs})
	}()
	answers := bufio.NewReader(outReader)
	for range 3 {
		if _, err := io.WriteString(in, "\"a\"\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := answers.ReadString('\n'); err != nil || line != "[100]\n" {
			t.Fatalf("answer %q, %v", line, err)
		}
	}
	cancel(&cli.Interrupted{Signal: stopSignal{}})
	want := "dpt tokenize: standard input: after line 3: stopped by signal: stop\n"
	if got := <-code; got != cli.ExitFailed || errs.String() != want {
		t.Errorf("exit %d, stderr %q", got, errs.String())
	}
	if err := errors.Join(in.Close(), out.Close()); err != nil {
		t.Error(err)
	}
}

type stopSignal struct{}

func (stopSignal) String() string { return "stop" }
func (stopSignal) Signal()        {}

func FuzzLines(f *testing.F) {
	f.Add("\"a\"\n{\"source\":\"b\"}\r\n\n", 3)
	f.Add("no newline", 1)
	f.Fuzz(func(t *testing.T, text string, size int) {
		// Whatever the sizes of the reads, the lines are the text's.
		in := newLineReader(t.Context(), "test", &dribble{text: text, size: max(1, size%64)})
		want := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if text == "" {
			want = nil
		}
		for i, w := range want {
			got, err := in.next()
			if err != nil || string(got) != strings.TrimRight(w, "\r\n") || in.number != i+1 {
				t.Fatalf("line %d is %q (number %d, %v), want %q", i+1, got, in.number, err, w)
			}
			if _, err := in.source(got); err != nil && !strings.Contains(err.Error(), "test: line ") {
				t.Fatalf("error %q does not name its line", err)
			}
		}
		if _, err := in.next(); err != io.EOF {
			t.Fatalf("after the last line: %v, want EOF", err)
		}
	})
}

// dribble is a reader of a few bytes at a time.
type dribble struct {
	text string
	size int
}

func (d *dribble) Read(p []byte) (int, error) {
	if d.text == "" {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), d.size)], d.text)
	d.text = d.text[n:]
	return n, nil
}
