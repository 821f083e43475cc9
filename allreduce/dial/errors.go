package dial

import (
	"errors"
	"net"
	"strconv"
	"strings"

	"google.golang.org/grpc/status"
)

// ResolveError tells why a host name has no address now. It may have one later: names of a cluster
// are often made after its first processes have started.
type ResolveError struct {
	Host string
	Err  error
}

func (e *ResolveError) Error() string {
	reason := e.Err.Error()
	if dns, ok := errors.AsType[*net.DNSError](e.Err); ok {
		// Its own text begins with the name, which stands there already.
		if reason = dns.Err; dns.Server != "" {
			reason += " (name server " + dns.Server + ")"
		}
	}
	return "cannot resolve " + e.Host + ": " + reason
}

func (e *ResolveError) Unwrap() error { return e.Err }

// ConnectError tells why none of a name's addresses was reached.
type ConnectError struct {
	Name     string // HOST:PORT
	Attempts []Attempt
}

// Attempt is the failure to connect to one address.
type Attempt struct {
	Addr string // IP:PORT
	Err  error
}

func (e *ConnectError) Error() string {
	reasons := make([]string, len(e.Attempts))
	for i, a := range e.Attempts {
		reasons[i] = a.Addr + ": " + withoutAddr(a.Err)
	}
	return "cannot connect to " + e.Name + ": " + strings.Join(reasons, "; ")
}

func (e *ConnectError) Unwrap() []error {
	errs := make([]error, len(e.Attempts))
	for i, a := range e.Attempts {
		errs[i] = a.Err
	}
	return errs
}

// withoutAddr returns the text of a dialer's error without the address that it names.
func withoutAddr(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		if op.Timeout() {
			return "no answer"
		}
		return op.Err.Error()
	}
	return err.Error()
}

// Reason returns what a person wants to read of an error of gRPC's: the message without its code,
// and of a failed connection only why it failed.
func Reason(err error) string {
	s, ok := status.FromError(err)
	if !ok {
		return err.Error()
	}
	message := s.Message()
	// gRPC quotes the error that it wraps: desc = "transport: Error while dialing: ..."
	at := strings.Index(message, grpcConnection)
	if at < 0 {
		return message
	}
	desc, err := strconv.QuotedPrefix(message[at+len(grpcConnection):])
	if err != nil {
		return message
	}
	if desc, err = strconv.Unquote(desc); err != nil {
		return message
	}
	for _, prefix := range []string{"transport: ", "Error while dialing: ", "authentication handshake failed: "} {
		desc = strings.TrimPrefix(desc, prefix)
	}
	return desc
}

// grpcConnection is what gRPC puts before the quoted error of a connection.
const grpcConnection = "connection error: desc = "
