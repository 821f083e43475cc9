// Package blobsync brings every large trainer state to every replica. No step is committed before a
// majority of the replicas has its state on disk.
//
// A trainer state that is too large for the raft log is a blob: the log holds its digest and size,
// and each replica keeps it as a file (package blobs). The way of a state:
//
//	expect     the leader's plan asks one worker to store the state after a step
//	store      the worker sends it to the leader, piece by piece (Store, in transfer.go)
//	offer      the leader puts its name into the log: StateOffered
//	fetch      every replica fetches the blobs that its state machine refers to (Sync.Run)
//	report     and reports to the leader which ones it holds
//	commit     when a majority holds the offered one, the leader commits the step
//
// A blob that nothing refers to any more is removed.
package blobsync
