// Package tlsconf is how the programs secure their connections: the flags --tls-cert, --tls-key, --tls-ca and --insecure, and what
// follows from them.
//
// With the three files every connection is mutual TLS 1.3. Each side presents its certificate and accepts the other's
// only if a CA in --tls-ca signed it, it is within its time, and it is meant for that end of a connection. The dialing side
// wants the host that it dials among the names in the other's certificate.
//
// The files are looked at before every handshake and read again when they have changed, so certificates and CAs are
// replaced without a restart; connections that stand are not touched. New files that cannot be used are logged, and the old
// certificate stays.
//
// A refused connection is told on both sides. A TLS 1.3 client is done with its handshake before the server has
// judged its certificate, and would learn of a refusal only from whatever its first read or write gives: often
// a bare reset. Clients of this package wait for the server's first byte before they write theirs, and so get the alert.
//
// Without the files everything is plain text, which the programs allow on loopback, and beyond it only with --insecure.
package tlsconf
