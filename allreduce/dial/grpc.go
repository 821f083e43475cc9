package dial

import (
	"context"
	"net"

	"google.golang.org/grpc"
)

// Client returns a gRPC client of the peer that addr names, HOST:PORT. It connects with dial, or as
// the zero Dialer does where dial is nil. Credentials verify the host of addr.
func Client(addr string, dial Func, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	if dial == nil {
		dial = Dialer{}.Dial
	}
	connect := func(ctx context.Context, addr string) (net.Conn, error) { return dial(ctx, addr) }
	// passthrough leaves the name to dial: gRPC's own resolver would keep the addresses. With a
	// dialer of ours gRPC asks no proxy; WithNoProxy says so.
	options = append([]grpc.DialOption{grpc.WithContextDialer(connect), grpc.WithNoProxy()}, options...)
	return grpc.NewClient("passthrough:///"+addr, options...)
}
