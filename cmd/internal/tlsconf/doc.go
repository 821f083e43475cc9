// Package tlsconf secures the connections of the programs: it has the flags --tls-cert, --tls-key,
// --tls-ca and --insecure, and the TLS configurations that follow from them.
//
// With the three files every connection is mutual TLS 1.3. Each side presents its certificate. It
// accepts the other's only if a CA in --tls-ca signed it, its time has not passed, and it is meant
// for that end of a connection. The dialing side wants the host that it dials among the names in
// the other's certificate.
//
// The package looks at the files before every handshake and reads them again when they have
// changed. So one replaces certificates and CAs without a restart; open connections are not
// affected. New files that cannot be used are logged, and the old certificate stays in use.
//
// Both sides log a refused connection. A TLS 1.3 client is done with its handshake before the
// server has judged its certificate. It would learn of a refusal only from the error of its first
// read or write, which is often a bare reset. Clients of this package wait for the server's first
// byte before they write theirs, and so receive the alert.
//
// Without the files everything is plain text. The programs allow that on loopback, and beyond it
// only with --insecure.
package tlsconf
