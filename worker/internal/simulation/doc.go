// Package simulation is a test harness and no part of the trainer: it runs whole clusters of
// coordinators and workers in one process against a fake clock, with faults drawn from a seed, and
// checks that training ends with the bits of an undisturbed run.
//
// The code under test is the product's: coordinator.Run and worker.Run with raft, gRPC and the ring
// all-reduce as they ship. What is simulated lies below and beside them:
//
//   - network (network.go, conn.go): connections between named hosts, in memory. Links have
//     latency, slow down, stall, and are partitioned in one direction or both.
//   - disk (disk.go, blobdisk.go, bitflip.go): raft's log, votes and snapshots, and the trainer
//     states that are too large for the log, as all are under a third of the seeds. A crash loses
//     what was not synced and may tear the last write. A replica whose disk has a flipped bit
//     repairs it, or refuses to go on until the bit is flipped back.
//   - clock: testing/synctest moves the time when every goroutine waits, so minutes cost
//     milliseconds.
//   - backbone (backbone.go): a cheap pure function in place of T5, which takes simulated time.
//   - process (process.go): one process of a coordinator or worker. It is crashed at any instant,
//     or at a crash point of its code.
//
// # A run
//
// [PlanOf] draws from the seed the cluster's size, the job and a script of faults, each with its
// time, its target and its remedy (plan.go lists the kinds). [Run] plays the script (world.go,
// faults.go): processes crash and come back, hang, leave and join, machines lose their power, links
// slow down, stall and are partitioned, disks fail, fill up and flip bits, ports receive garbage,
// and everything goes at once. Under half of the seeds logs are compacted after a few entries.
// After the last remedy the cluster is whole, and the job has to end within a bounded time.
//
// # What is checked
//
// At every commit that a live coordinator makes known, and at every start of one (checker.go):
//
//   - after a failure, no more steps are done again than those up to the next commit and the commit
//     window's;
//   - the step's state and batch digests are those of the undisturbed run, whoever commits it and
//     however often;
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
// Connections stand for TCP: bytes arrive in order and whole, or the connection breaks. So a lost
// message is a broken connection, a late one a slow or held link, and messages are reordered only
// between connections.
//
// # Replay
//
// Everything that the simulation draws is drawn from the seed, by purpose and not by the order of
// events, so that an event more in one goroutine does not change what another draws. What Go itself
// draws is drawn from the seed too: the tests play each seed in a fresh process on one thread of a
// program that command replay builds, whose runtime draws its random numbers from the seed and does
// nothing by the clock. The same seed then has the same events at the same nanoseconds, and a seed
// that fails names the command that plays it again:
//
//	go run ./worker/internal/simulation/replay -seed 17
//
// Under the race detector, with -short and where that program cannot be built, a seed still has the
// same cluster and the same script of faults, but not the same interleaving.
package simulation
