package replica

import (
	"context"
	"io"
	"log/slog"
	"slices"

	"github.com/hashicorp/go-hclog"
)

// hclogTo sends raft's own log lines to slog: errors as warnings, because raft retries what failed,
// and the rest at debug level. The coordinator itself logs what matters to a user.
func hclogTo(logger *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Debug, Output: io.Discard})
	l.RegisterSink(&slogSink{logger: logger.With("component", "raft")})
	return l
}

// slogSink is an hclog.SinkAdapter.
type slogSink struct{ logger *slog.Logger }

// unreachable are the errors that raft reports again and again while a replica is away.
var unreachable = []string{
	"failed to appendEntries to",
	"failed to heartbeat to",
	"failed to make requestVote RPC",
	"failed to pipeline appendEntries",
	"failed to start pipeline replication to",
	"failed to decode incoming command",
	"failed to flush response",
	"peer has newer term, stopping replication",
}

// Accept implements hclog.SinkAdapter.
func (s *slogSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	if level >= hclog.Error && !slices.Contains(unreachable, msg) {
		to = slog.LevelWarn
	}
	s.logger.Log(context.Background(), to, msg, args...)
}
