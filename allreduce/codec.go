package allreduce

import (
	"fmt"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// codecName is the gRPC content-subtype of the ring's streams. It selects the
// codec per stream, so a server may carry other services as well.
const codecName = "dpt-ring"

func init() { encoding.RegisterCodecV2(codec{}) }

// codec passes the bytes of messages through: no copy when sending, one copy
// into a buffer that the receiver reuses when receiving.
type codec struct{}

// outbound is what the ring gives to SendMsg. The buffer's reference passes to gRPC.
type outbound struct{ buffer mem.Buffer }

// inbound is what the ring gives to RecvMsg. Its bytes are overwritten by the next RecvMsg.
type inbound struct{ bytes []byte }

func (codec) Name() string { return codecName }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	out, ok := v.(*outbound)
	if !ok {
		return nil, fmt.Errorf("encode a %T: codec %s sends only its own messages", v, codecName)
	}
	return mem.BufferSlice{out.buffer}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*inbound)
	if !ok {
		return fmt.Errorf("decode into a %T: codec %s receives only its own messages", v, codecName)
	}
	if n := data.Len(); cap(in.bytes) < n {
		in.bytes = make([]byte, n)
	} else {
		in.bytes = in.bytes[:n]
	}
	data.CopyTo(in.bytes)
	return nil
}

// bufferPool recycles the buffers of sent messages once gRPC has written them.
type bufferPool struct{ pool sync.Pool }

// Get implements mem.BufferPool.
func (p *bufferPool) Get(length int) *[]byte {
	b, ok := p.pool.Get().(*[]byte)
	if !ok || cap(*b) < length {
		fresh := make([]byte, length)
		return &fresh
	}
	*b = (*b)[:length]
	return b
}

// Put implements mem.BufferPool.
func (p *bufferPool) Put(b *[]byte) { p.pool.Put(b) }
