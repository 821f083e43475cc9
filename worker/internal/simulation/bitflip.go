package simulation

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/hashicorp/raft"
)

// flipBit flips one bit of what the disk holds: of an entry of the log, its index and type
// included, of a vote or term, of a snapshot, or of a large trainer state. It returns what it has
// flipped, and undo, which flips it back unless that was overwritten. On an empty disk it does
// nothing, and undo is nil.
func (d *disk) flipBit(r *rand.Rand) (what string, undo func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	flip := func(data []byte) []byte {
		data = bytes.Clone(data)
		data[r.IntN(len(data))] ^= 1 << r.IntN(8)
		return data
	}
	locked := func(f func()) func() {
		return func() { d.mu.Lock(); defer d.mu.Unlock(); f() }
	}
	kind := r.IntN(10)
	if len(d.files) > 0 && r.IntN(3) == 0 {
		name := pick(r, slices.Sorted(maps.Keys(d.files)))
		good := d.files[name]
		d.files[name] = flip(good)
		return "file " + name, locked(func() { d.files[name] = good }) // its name is its digest
	}
	switch {
	case kind == 0 && len(d.stable) > 0:
		key := pick(r, slices.Sorted(maps.Keys(d.stable)))
		good := d.stable[key]
		bad := flip(good)
		d.stable[key] = bad
		return "value " + key, locked(func() {
			if bytes.Equal(d.stable[key], bad) {
				d.stable[key] = good
			}
		})
	case kind <= 3 && len(d.snapshots) > 0:
		i := r.IntN(len(d.snapshots))
		good, id := d.snapshots[i].data, d.snapshots[i].meta.ID
		d.snapshots[i].data = flip(good)
		return "snapshot " + id, locked(func() {
			for i := range d.snapshots {
				if d.snapshots[i].meta.ID == id {
					d.snapshots[i].data = good
				}
			}
		})
	case len(d.logs) > 0:
		index := pick(r, slices.Sorted(maps.Keys(d.logs)))
		good := d.logs[index]
		bad := *good
		what := fmt.Sprintf("entry %d", index)
		switch part := r.IntN(8); {
		case part == 0:
			bad.Index ^= 1 << r.IntN(8)
			what += "'s index"
		case part == 1:
			bad.Term ^= 1 << r.IntN(8)
			what += "'s term"
		case part <= 3:
			bad.Type ^= raft.LogType(1 << r.IntN(3))
			what += "'s type"
		case part == 4 || len(bad.Data) == 0:
			bad.Extensions = flip(bad.Extensions)
			what += "'s checksum"
		default:
			bad.Data = flip(bad.Data)
		}
		d.logs[index] = &bad
		return what, locked(func() {
			if d.logs[index] == &bad {
				d.logs[index] = good
			}
		})
	}
	return "", nil
}
