package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/dptune/dpt/cmd/internal/cmdtest"
)

func TestListenForReplicas(t *testing.T) {
	var log cmdtest.Output
	logger := slog.New(slog.NewTextHandler(&log, nil))
	l, err := listenForReplicas(t.Context(), "127.0.0.1:0", logger)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := listenForReplicas(t.Context(), l.Addr().String(), logger); err == nil || log.String() != "" {
		t.Errorf("a port in use: %v, log %s; want an error at once", err, &log)
	}

	// No name server has this name, and none is asked for it.
	ctx, stop := context.WithCancelCause(t.Context())
	why := errors.New("stopped")
	time.AfterFunc(50*time.Millisecond, func() { stop(why) })
	if _, err := listenForReplicas(ctx, "a..b:0", logger); err != why {
		t.Errorf("a name that does not resolve: %v, want that it waits until it is stopped", err)
	}
	if !strings.Contains(log.String(), "lookup a..b: no such host") {
		t.Errorf("the log says nothing of the name: %s", &log)
	}
}
