package cli

import (
	"context"
	"net"
	"time"
)

// loopbackLookup bounds the resolution of a name that Loopback is asked about.
const loopbackLookup = 8 * time.Second

// Loopback reports whether a HOST:PORT stays on this machine. The empty host is every interface, so
// it does not. A name does if it resolves and all its addresses do.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return false
	}
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	ctx, cancel := context.WithTimeout(context.Background(), loopbackLookup)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil || len(ips) == 0 {
		return false
	}
	for _, ip := range ips {
		if !ip.IP.IsLoopback() {
			return false
		}
	}
	return true
}
