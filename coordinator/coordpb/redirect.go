package coordpb

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// RedirectTo is the UNAVAILABLE status of a replica that does not lead, with the Redirect among its
// details.
func RedirectTo(to *Redirect, format string, args ...any) error {
	st := status.Newf(codes.Unavailable, format, args...)
	detailed, err := st.WithDetails(to)
	if err != nil {
		return st.Err() // without the details
	}
	return detailed.Err()
}

// RedirectOf is the leader's address for workers in the details of err; "" if there is none.
func RedirectOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*Redirect); ok {
			return r.WorkerAddr
		}
	}
	return ""
}
