package tlsconf

import (
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// retryBroken is the time between two attempts to load files that cannot be used and have not
// changed: a certificate may become valid meanwhile.
const retryBroken = 10 * time.Second

// source holds the last usable contents of the files.
type source struct {
	files Files
	now   func() time.Time
	log   *slog.Logger

	mu     sync.Mutex     // guards the fields below
	seen   [3]fs.FileInfo // the files when they were last read; nil where there was none
	broken bool           // whether the contents last read could not be used
	tried  time.Time      // when they were read
	good   *material      // the last usable contents
}

// newSource reads the files.
func newSource(files Files, now func() time.Time, log *slog.Logger) (*source, error) {
	s := &source{files: files, now: now, log: log, seen: stat(files)}
	var err error
	s.good, err = files.load(now())
	return s, err
}

// current is the contents of the files or, if they cannot be used, the last usable contents. It may
// be called from any goroutine.
func (s *source) current() *material {
	s.mu.Lock()
	defer s.mu.Unlock()
	// stat comes before the read: a file that changes in between is read again the next time.
	seen := stat(s.files)
	changed := false
	for i := range seen {
		changed = changed || !sameFile(seen[i], s.seen[i])
	}
	now := s.now()
	if !changed && !(s.broken && now.Sub(s.tried) >= retryBroken) {
		return s.good
	}
	m, err := s.files.load(now)
	if err != nil {
		if changed { // once for each change
			s.log.Error("the TLS files changed and cannot be used; the certificate from before stays in use",
				"reason", err, "expires", formatTime(s.good.cert.Leaf.NotAfter))
		}
	} else {
		s.good = m
		leaf := m.cert.Leaf
		s.log.Info("TLS files read again", "certificate", nameOf(leaf), "expires", formatTime(leaf.NotAfter))
	}
	s.seen, s.broken, s.tried = seen, err != nil, now
	return s.good
}

func stat(f Files) (infos [3]fs.FileInfo) {
	for i, path := range []string{f.Cert, f.Key, f.CA} {
		if info, err := os.Stat(path); err == nil {
			infos[i] = info
		}
	}
	return infos
}

// sameFile reports whether a path still leads to the same file with the same contents, as far as
// the file system tells.
func sameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
