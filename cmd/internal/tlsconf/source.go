package tlsconf

import (
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// retryBroken is how often files that cannot be used are tried again though nothing about them has changed: a
// certificate may have been put there before its time.
const retryBroken = 10 * time.Second

// source holds what the files last held that was good.
type source struct {
	files Files
	now   func() time.Time
	log   *slog.Logger

	mu     sync.Mutex
	seen   [3]fs.FileInfo // the files as last read; nil where there was none
	broken bool           // what was last read could not be used
	tried  time.Time      // when
	good   *material
}

// newSource reads the files.
func newSource(files Files, now func() time.Time, log *slog.Logger) (*source, error) {
	s := &source{files: files, now: now, log: log, seen: stat(files)}
	var err error
	s.good, err = files.load(now())
	return s, err
}

// current is what the files hold, or if that cannot be used what they held before. It may be called from any goroutine.
func (s *source) current() *material {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Looking comes before reading: a file that changes in between is read again the next time.
	seen := stat(s.files)
	changed := false
	for i := range seen {
		changed = changed || !same(seen[i], s.seen[i])
	}
	now := s.now()
	if !changed && !(s.broken && now.Sub(s.tried) >= retryBroken) {
		return s.good
	}
	m, err := s.files.load(now)
	if err != nil {
		if changed { // once for each change
			s.log.Error("the TLS files changed and cannot be used; the certificate from before stays in use", "reason", err, "expires", stamp(s.good.cert.Leaf.NotAfter))
		}
	} else {
		s.good = m
		s.log.Info("TLS files read again", "certificate", nameOf(m.cert.Leaf), "expires", stamp(m.cert.Leaf.NotAfter))
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

// same says whether a path still leads to the same file with the same contents, as far as the file system tells.
func same(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
