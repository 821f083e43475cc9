package replica

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"testing"

	"github.com/hashicorp/raft"
)

// FuzzParseSnapshot: whatever a snapshot's file holds gives an error, or metadata and a machine
// that lie within the file.
func FuzzParseSnapshot(f *testing.F) {
	dir, err := openSnapshots(f.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	sink, err := dir.Create(1, 7, 3, raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a:1"}}}, 2, nil)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := sink.Write([]byte("the machine")); err != nil {
		f.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		f.Fatal(err)
	}
	list, err := dir.List()
	if err != nil || len(list) != 1 {
		f.Fatalf("%d snapshots, %v, want one", len(list), err)
	}
	good, body, err := dir.read(list[0].ID)
	if err != nil || good.Index != 7 || good.Term != 3 || string(body) != "the machine" {
		f.Fatalf("got %+v with %q, %v", good, body, err)
	}
	seal := func(content []byte) []byte {
		sum := sha256.Sum256(content)
		return append(bytes.Clone(content), sum[:]...)
	}
	head := []byte(snapshotMagic)
	f.Add(append(binary.LittleEndian.AppendUint32(bytes.Clone(head), 2), "{}machine"...))
	f.Add(append(binary.LittleEndian.AppendUint32(bytes.Clone(head), 1<<31), "{}"...))
	f.Add(append(binary.LittleEndian.AppendUint32(bytes.Clone(head), 13), `{"Index":1e9}`...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, file := range [][]byte{data, seal(data)} { // as it is, and with a digest that holds
			meta, body, err := parseSnapshot(file)
			if err != nil {
				continue
			}
			content := file[:len(file)-sha256.Size]
			if meta == nil || len(body) > len(content)-len(snapshotMagic)-4 || !bytes.HasSuffix(content, body) {
				t.Errorf("%d bytes give %+v and %d bytes of the machine", len(file), meta, len(body))
			}
		}
	})
}
