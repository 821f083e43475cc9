// Package coordinator runs a training job: it deals out batches to workers, commits every step to a raft log, evaluates,
// and writes the prompt.
//
// The parts, from the wire inward:
//
//	process            one replica: serves, records, and leads whenever raft says so
//	front              the gRPC face of a replica; sends workers to the one that leads
//	server, session    one gRPC stream per worker, turned into events and a queue of messages
//	controller         the leader's loop: generations, plans, reports, commits, evaluations; one goroutine owns it all
//	Planner            what a step trains on: a pure function of (data, settings, seed, step)
//	node, replica      the raft node; coordinator/fsm is the state machine it feeds
//	journal, snapshots what raft keeps on disk, under checksums; raftStream carries it between replicas
//	recorder, outputs  the files a user gets, at every replica
//
// A step: the controller sends each rank its Plan; the ranks compute, all-reduce among themselves and report the digest of
// the state they reached; when all digests agree the controller proposes StepCommitted with that state; once the log has it,
// every replica's recorder writes it down and the next plan goes out. Workers run ahead of the commit by Config.CommitWindow steps.
//
// Whatever goes wrong with a worker ends the generation: the steps in flight are abandoned, and the next
// generation of whoever is ready resumes from the committed state. Nothing else has to be recovered, because nothing
// else is kept.
package coordinator
