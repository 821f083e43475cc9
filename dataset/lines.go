package dataset

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds one line of a JSONL file in bytes. SuperGLUE's longest, of MultiRC and ReCoRD,
// have a few tens of kilobytes.
const maxLine = 64 << 20

// lineReader reads a file line by line in bounded memory.
type lineReader struct {
	r    *bufio.Reader
	max  int // longest line accepted, in bytes without its end
	line int // number of the line that next returned last, from 1
	buf  []byte
}

func newLineReader(r io.Reader, max int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 64<<10), max: max}
}

// next returns the next line that is not blank, without surrounding white space, or io.EOF. The
// line is valid until the next call. A byte order mark before the first line is dropped, as some
// editors write one.
func (l *lineReader) next() ([]byte, error) {
	for {
		l.line++
		l.buf = l.buf[:0]
		for {
			chunk, err := l.r.ReadSlice('\n')
			l.buf = append(l.buf, chunk...)
			if len(bytes.TrimRight(l.buf, "\r\n")) > l.max {
				return nil, fmt.Errorf("line is longer than %d bytes, want one JSON object per line", l.max)
			}
			if err == nil {
				break
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if !errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("reading failed: %w", err)
			}
			if len(l.buf) == 0 {
				return nil, io.EOF
			}
			break
		}
		line := l.buf
		if l.line == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return line, nil
		}
	}
}
