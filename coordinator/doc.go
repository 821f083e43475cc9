// Package coordinator runs a training job: it deals out batches to workers, commits every step to a
// raft log, evaluates, and writes the prompt.
//
// This package is the leader and the gRPC face of a replica. From the wire inward:
//
//	process, term        one replica: serves, records, and leads whenever raft says so
//	service              the gRPC services; sends workers to the replica that leads
//	queue_service        the jobs that users submit, list and cancel
//	admission            how many strangers may be connected
//	session, workers     one gRPC stream per worker, turned into events; dispatch of its messages
//	controller           the leader's loop; one goroutine owns it all
//	roster               the workers that are connected, and those that can take part
//	generation, steps    rings of workers; plans, reports and commits of steps
//	stragglers           how fast workers are, and what becomes of one that is late
//	audit                contributions that two workers compute, and disputes about them
//	evaluation, offer    evaluations, and states that are too large for the log
//	queue                the leader's part in a queue of jobs
//	heartbeat            every interval, and who concludes what after how long
//	messages             constructors for messages to workers and entries of the log
//
// The rooms below it: job (what is trained and on what), deal (which rank computes what), replica
// (raft and its disk), blobsync and blobs (large trainer states), outputs (what a run leaves), fsm
// (the replicated state machine), coordpb (the wire), ids.
//
// A step: the controller sends each rank its Plan; the ranks compute, all-reduce among themselves
// and report the digest of the state that they reached; when all digests agree the controller
// proposes StepCommitted with that state; once the log has it, every replica's recorder writes it
// down and the next plan goes out. Workers run ahead of the commit by Config.CommitWindow steps.
//
// Whatever goes wrong with a worker ends the generation: the steps in flight are abandoned, and the
// next generation of whoever is ready resumes from the committed state. Nothing else has to be
// recovered, because nothing else is kept.
package coordinator
