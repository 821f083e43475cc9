package replica

import "github.com/hashicorp/raft"

// What the tests in package replica_test see of the inside.
var ErrDamaged = errDamaged

const (
	SnapshotExt = snapshotExt
	Greeting    = raftGreeting
)

// ApplyRaw puts data into the log as it is.
func (n *Node) ApplyRaw(data []byte) error { return n.raft.Apply(data, 0).Error() }

// CloseStore takes the log's file away.
func (n *Node) CloseStore() error { return n.log.store.Close() }

// StoreLog writes an entry past raft.
func (n *Node) StoreLog(l *raft.Log) error { return n.log.StoreLog(l) }

// LogPath is where the log's file lies.
func (n *Node) LogPath() string { return n.log.path }
