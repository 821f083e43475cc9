package coordinator

import "time"

// Every interval and multiple by which the coordinator concludes something from silence or delay.
//
//	who concludes      what, and what it does about it         after how long
//	-----------------  --------------------------------------  ----------------------------------
//	leader             a worker is lost: its session ends      --heartbeat-timeout of silence
//	leader             a worker hangs: it stands down          silentBeats heartbeats, if all
//	                                                           others wait for it
//	leader             a worker is a straggler: stands down    stragglerFactor times what its
//	                                                           speed lets expect and
//	                                                           stragglerGrace, if all wait
//	leader             an evaluation chunk is late: another    the same, by the mean chunk's time
//	                   worker computes it too
//	leader, new        the workers of the leader before are    rejoinGrace
//	                   not all back: it starts without them
//	leader             the job cannot go on: it ends           maxBarren generations in a row
//	                                                           without a committed step
//	worker             the coordinator is lost: it looks for   what Welcome and Idle tell it
//	                   the next leader
//	worker             a ring neighbour hangs: it reports      --step-timeout
//	follower           the leader is lost: an election         1 to 2 times --election-timeout
//	                                                           (package replica)
//	replica            a stranger does not introduce itself:   strangerTimeout
//	                   its connection is closed
//	replica, finished  the others do not finish: it goes       lingerTimeout
const (
	// DefaultHeartbeatTimeout and DefaultStepTimeout are the programs' defaults.
	DefaultHeartbeatTimeout = 5 * time.Second
	DefaultStepTimeout      = 10 * time.Minute

	// beatsPerTimeout is how many heartbeats a session sends in a heartbeat timeout, in either
	// direction.
	beatsPerTimeout = 5
	// tickInterval is how often the leader looks for silence and delay.
	tickInterval = 100 * time.Millisecond

	// regroupDelay lets the other reports of one failure arrive before a new ring is formed. It
	// doubles with each generation that ends without a committed step, up to maxRegroupDelay.
	regroupDelay    = 200 * time.Millisecond
	maxRegroupDelay = 5 * time.Second
	// maxBarren is how many generations in a row may end without progress before the job is given
	// up.
	maxBarren = 20
	// rejoinGrace is how long a new leader waits for the workers that the one before had.
	rejoinGrace = 1500 * time.Millisecond

	// stragglerGrace is a grace period for every delay: re-forming the ring costs about as much, so
	// a shorter delay is not worth it. The leader's own stalls are forgiven beyond it.
	stragglerGrace = time.Second
	// stragglerFactor is how many times longer than expected a rank may compute while all others
	// wait.
	stragglerFactor = 3
	// unmeasuredFactor is the same for a rank whose speed is not known yet.
	unmeasuredFactor = 10
	// silentBeats is after how many missed heartbeats a rank that all others wait for counts as
	// hung.
	silentBeats = 2.5
	// firstRest is how long a worker that was a straggler twice stays out; it doubles with each
	// time, up to maxRest.
	firstRest = 2 * time.Second
	maxRest   = time.Minute
	// steadySteps is after how many steps in time a worker's delays are forgotten.
	steadySteps = 50
	// firstMeasure is after how many steps without work a rank's speed is measured again; it
	// doubles with each time, up to maxMeasure.
	firstMeasure = 32
	maxMeasure   = 1024

	// connectionTimeout bounds the handshakes of a new connection.
	connectionTimeout = 15 * time.Second
	// helloTimeout bounds the wait for a new session's first message.
	helloTimeout = 10 * time.Second
	// leaderWait is how long a worker that asks a replica without a leader is kept waiting for one:
	// it learns of the new leader as soon as there is one. leaderPoll is how often its question is
	// looked at again.
	leaderWait = 2 * time.Second
	leaderPoll = 20 * time.Millisecond
	// strangerTimeout is how long a connection may stay without an introduction: a handshake, a
	// wait for a leader and a hello, and some.
	strangerTimeout = connectionTimeout + leaderWait + helloTimeout + 3*time.Second
	// idleTimeout is after how long a connection without calls is closed.
	idleTimeout = 2 * time.Minute

	// finishGrace bounds the wait for workers to read that the job is over.
	finishGrace = 3 * time.Second
	// lingerTimeout bounds the wait of a finished replica for the others to finish too; lingerPoll
	// is how often it asks, and reportTimeout bounds its report to the leader.
	lingerTimeout = 10 * time.Second
	lingerPoll    = 100 * time.Millisecond
	reportTimeout = time.Second
	// brokenGrace bounds the wait for the controller to stop after the replica's disk has failed.
	brokenGrace = 3 * time.Second
	// superviseInterval is how often a replica looks whether raft has stopped by itself.
	superviseInterval = 500 * time.Millisecond
)

// heartbeatInterval is the time between heartbeats in a session, in either direction.
func (c *Config) heartbeatInterval() time.Duration { return c.HeartbeatTimeout / beatsPerTimeout }
