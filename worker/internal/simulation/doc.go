// Package simulation runs whole clusters, coordinators and workers, in one process against a fake clock, with faults
// drawn from a seed, and checks that training ends with the bits of an undisturbed run.
//
// The code under test is the product's: coordinator.Run and worker.Run with raft, gRPC and the ring all-reduce as they
// ship. What is simulated lies below and beside them:
//
//	network    connections between named hosts, in memory; links have latency, slow down, stall, are cut one way or both
//	disk       raft's log, votes and snapshots, and the trainer states that are too large for the log, as all are under a third of the
//	           seeds; a crash loses what was not synced and may tear the last write. A replica whose disk has a flipped
//	           bit does without it, or refuses to go on and gets the bit back
//	clock      testing/synctest: time moves when every goroutine waits, so minutes cost milliseconds
//	backbone   a cheap pure function in place of T5, which takes simulated time
//	process    one life of a coordinator or worker: it is crashed at any instant or at a marked point of its code
//
// # A run
//
// [Plan] draws from the seed the cluster's size, the job and a script of faults, each with its time, its target
// and its remedy. [Run] plays the script: processes crash and come back, hang, leave and join, machines lose their power,
// links slow down, stall and part, disks fail, fill up and flip bits, strangers send rubbish to a port, everything goes at once. Logs are compacted after a
// few entries under half of the seeds. After the last remedy the cluster is whole, and the job has to
// end within a bounded time.
//
// # What is checked
//
// At every commit that a live coordinator makes known, and at every start of one:
//
//   - no more steps are done again after a failure than those up to the next commit and the commit window's;
//   - the step's state and batch digests are those of the undisturbed run, whoever committed it and however often it is seen;
//   - no step is left out, and no restart goes back behind a step that was made known as committed.
//
// At the end:
//
//   - the job has finished, in time, and no process ended for a reason of its own;
//   - the state, the history of all steps and the prompt's file are those of the undisturbed run;
//   - metrics.jsonl has each step once, and in each epoch each example once.
//
// # What a stream can do
//
// Connections stand for TCP: bytes arrive in order and whole, or the connection breaks. So a lost message is a cut
// connection, a late one a slow or stalled link, and messages are reordered only between connections.
//
// # Replay
//
// Everything the simulation draws is drawn from the seed, by name and not by the order of events, so that one goroutine's luck does not
// change another's. What Go itself draws is drawn from the seed too: the tests play each seed in a fresh process on one thread of a program that
// command replay builds, whose runtime has its random numbers from the seed and does nothing by the clock. The same seed is then the same
// events at the same nanoseconds, and a seed that fails names the command that plays it again:
//
//	go run ./worker/internal/simulation/replay -seed 17
//
// Under the race detector, with -short and where that program cannot be built, a seed still is the same cluster and the same script of faults, but
// not the same interleaving.
package simulation
