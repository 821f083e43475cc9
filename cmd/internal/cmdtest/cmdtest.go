// Package cmdtest has helpers that the tests of the programs share. Their errors end the test.
package cmdtest

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// ReadFile returns the contents of the file whose path the parts make up.
func ReadFile(t testing.TB, parts ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// WriteFile writes the file at once: whoever reads it meanwhile gets the old contents or the new.
func WriteFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// RemoveFile removes the file whose path the parts make up.
func RemoveFile(t testing.TB, parts ...string) {
	t.Helper()
	if err := os.Remove(filepath.Join(parts...)); err != nil {
		t.Fatal(err)
	}
}

// Listen returns a listener on a free port of loopback, which is closed when the test ends.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// Output collects what is written to it. Any goroutine may write and read it.
type Output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// String is everything that has been written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Reset forgets everything that has been written so far.
func (o *Output) Reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Reset()
}

// Await waits until all texts have been written, and reports whether that happened within a minute.
func (o *Output) Await(texts ...string) bool {
	for range 6000 {
		all := o.String()
		missing := false
		for _, text := range texts {
			missing = missing || !strings.Contains(all, text)
		}
		if !missing {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}
