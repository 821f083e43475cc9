package replica

import "github.com/hashicorp/raft"

// What the tests in package replica_test see of the inside.

// ErrDamaged is errDamaged.
var ErrDamaged = errDamaged

const (
	SnapshotExt = snapshotExt
	Greeting    = raftGreeting
)

// ApplyRaw puts data into the log as it is.
func (n *Node) ApplyRaw(data []byte) error { return n.raft.Apply(data, 0).Error() }

// Stop stops the replica without a snapshot, as a crash would.
func (n *Node) Stop() error { return n.stop() }

// CloseStore closes the log's file under the replica.
func (n *Node) CloseStore() error { return n.log.store.Close() }

// StoreLog writes an entry into the log's file, without raft.
func (n *Node) StoreLog(l *raft.Log) error { return n.log.StoreLog(l) }

// LogPath is the path of the log's file.
func (n *Node) LogPath() string { return n.log.path }
