// Package fsmpb holds the entries of the replicated log and the snapshot of the state machine that
// reads them.
package fsmpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative fsm.proto
