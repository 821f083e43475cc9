package coordpb

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// RedirectTo is a replica's refusal that says who leads.
func RedirectTo(to *Redirect, format string, args ...any) error {
	st := status.Newf(codes.Unavailable, format, args...)
	detailed, err := st.WithDetails(to)
	if err != nil {
		return st.Err() // the message is left
	}
	return detailed.Err()
}

// RedirectOf is the leader's address that a replica's refusal names; "" if it names none.
func RedirectOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*Redirect); ok {
			return r.WorkerAddr
		}
	}
	return ""
}
