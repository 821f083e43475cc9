package allreduce

import (
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// The gRPC service has one method: a stream on which a member passes messages
// (message.go) to another one. The receiver answers with response metadata once it
// has accepted the stream, and with a status at its end: OK when it leaves
// the ring in good order, Aborted with a reason when its ring failed. It is written by
// hand and not generated, because its messages are not protocol buffers: those would cost
// an allocation and two copies of every chunk.
const (
	serviceName = "dpt.allreduce.Ring"
	methodName  = "Pass"
	fullMethod  = "/" + serviceName + "/" + methodName
)

var streamDesc = grpc.StreamDesc{
	StreamName: methodName,
	Handler: func(server any, stream grpc.ServerStream) error {
		return server.(ringServer).pass(stream)
	},
	ServerStreams: true,
	ClientStreams: true,
}

var serviceDesc = grpc.ServiceDesc{
	ServiceName: serviceName,
	HandlerType: (*ringServer)(nil),
	Streams:     []grpc.StreamDesc{streamDesc},
}

// ringServer is what serves the streams: a *Node.
type ringServer interface {
	pass(grpc.ServerStream) error
}

const (
	// window is a stream's flow-control window. It bounds the unread bytes that the receiver
	// buffers, and is large enough that a step's chunks of a prompt never wait for flow control.
	window = 1 << 20
	// ioBuffer lets a chunk of a prompt leave in one write.
	ioBuffer = 128 << 10
	// pingAfter and pingTimeout find a neighbour's host that has vanished while
	// nothing is being sent.
	pingAfter   = 10 * time.Second
	pingTimeout = 5 * time.Second
)

func serverOptions(c Config) []grpc.ServerOption {
	return append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(c.MaxMessageBytes),
		grpc.InitialWindowSize(window),
		grpc.InitialConnWindowSize(window),
		grpc.ReadBufferSize(ioBuffer),
		grpc.MaxHeaderListSize(8 << 10),
		grpc.MaxConcurrentStreams(uint32(c.maxPending)),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingAfter / 2}),
	}, c.ServerOptions...)
}

func dialOptions(c Config) []grpc.DialOption {
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(
			grpc.CallContentSubtype(codecName),
			grpc.MaxCallSendMsgSize(math.MaxInt32),
			grpc.MaxCallRecvMsgSize(0), // the receiver answers with no messages
		),
		grpc.WithWriteBufferSize(ioBuffer),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: retryFirst, Multiplier: 2, MaxDelay: retryMax},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}),
	}, c.DialOptions...)
}
