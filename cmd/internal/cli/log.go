package cli

import (
	"io"
	"log/slog"
)

// Log configures how a program logs. The zero value is not ready: start from [DefaultLog].
type Log struct {
	Format string // "text" or "json"
	Level  string // "debug", "info", "warn" or "error"
	Quiet  bool   // warnings and errors only, and no progress
}

// DefaultLog logs text from level info.
func DefaultLog() Log { return Log{Format: "text", Level: "info"} }

// Bind adds --log-format, --log-level and --quiet to the group.
func (l *Log) Bind(g *Group) {
	g.Choice(&l.Format, "log-format", "format of log lines on standard error", "text", "json")
	g.Choice(&l.Level, "log-level", "least severe `LEVEL` to log, one of debug, info, warn and error",
		"debug", "info", "warn", "error")
	g.Bool(&l.Quiet, "quiet", "log warnings and errors only, and show no progress")
}

// Logger returns the logger that writes to w.
func (l Log) Logger(w io.Writer) *slog.Logger {
	var level slog.Level
	// Level holds one of the four names; UnmarshalText knows them all.
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		level = slog.LevelInfo
	}
	if l.Quiet {
		level = max(level, slog.LevelWarn)
	}
	options := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
