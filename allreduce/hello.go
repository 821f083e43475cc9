package allreduce

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"google.golang.org/grpc/metadata"
)

const (
	// helloKey is the request metadata that opens a stream.
	helloKey = "dpt-ring-hello-bin"
	// acceptKey is the response metadata by which a stream is accepted.
	acceptKey = "dpt-ring-accept"

	helloSize = 1 + 8 + 4 + 4 + sha256.Size // without the job's id
	// maxJob bounds a job's id, in bytes.
	maxJob = 256
)

// hello says who opens a stream, and what ring it believes to be in. It travels
// in the request's metadata, so that a stream that does not belong here is
// refused before any of its messages is read.
type hello struct {
	generation Generation
	from       Rank
	size       int
	members    [sha256.Size]byte // membershipDigest
	job        string
}

func (h hello) append(b []byte) []byte {
	b = append(b, wireVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.generation))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.from))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.size))
	b = append(b, h.members[:]...)
	return append(b, h.job...)
}

func decodeHello(b []byte) (hello, error) {
	if len(b) <= helloSize || len(b) > helloSize+maxJob {
		return hello{}, fmt.Errorf("hello of %d bytes, want %d to %d", len(b), helloSize+1, helloSize+maxJob)
	}
	if b[0] != wireVersion {
		return hello{}, fmt.Errorf("hello speaks version %d of the ring protocol, want %d", b[0], wireVersion)
	}
	h := hello{
		generation: Generation(binary.LittleEndian.Uint64(b[1:])),
		from:       Rank(binary.LittleEndian.Uint32(b[9:])),
		size:       int(binary.LittleEndian.Uint32(b[13:])),
		job:        string(b[helloSize:]),
	}
	copy(h.members[:], b[17:])
	if h.size < 2 || h.size > maxMembers || int(h.from) >= h.size {
		return hello{}, fmt.Errorf("hello from rank %d of %d, want a rank below a size of 2 to %d",
			h.from, h.size, maxMembers)
	}
	return h, nil
}

// helloOf reads the hello of an incoming stream.
func helloOf(ctx context.Context) (hello, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get(helloKey)
	if len(values) != 1 {
		return hello{}, fmt.Errorf("%d values of %s in the request's metadata, want one", len(values), helloKey)
	}
	return decodeHello([]byte(values[0]))
}

// membershipDigest identifies a ring's members by their ids, in order. Addresses
// are left out: they may look different from different hosts.
func membershipDigest(members []Member) [sha256.Size]byte {
	var b []byte
	for _, m := range members {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(m.ID)))
		b = append(b, m.ID...)
	}
	return sha256.Sum256(b)
}
