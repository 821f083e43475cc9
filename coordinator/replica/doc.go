// Package replica is one replica of the coordinator's state: a raft node, the state machine
// (package fsm) that it feeds, and what both keep on disk.
//
//	open, node           opening a replica, alone or as one of several; proposing; stopping
//	leadership           who leads, and the members
//	machine              the state machine behind a lock: views, status and changes
//	checkedlog, bolt     raft's log and vote in a bolt file, with a checksum for every entry
//	snapshots            raft's snapshots, each a file with a digest
//	stream               connections between replicas, with a greeting that tells strangers apart
//	hclog                raft's own log lines as slog lines
//	storage              what a simulation replaces the files with
//
// Nothing outside this package uses raft.
package replica
