// Package dial makes every connection of the programs: between workers and the coordinator, between
// ring neighbours, between replicas, and from the dpt commands.
//
// A name is resolved each time that it is dialed, so that an address that has changed is found. Its
// addresses are tried one after another, each for a bounded time. TLS verifies the name that was
// configured, whichever address answers: gRPC takes the name as the connection's authority.
//
// Connections go to the address itself. The environment's proxies (HTTPS_PROXY, ALL_PROXY) are not
// used: a proxy for the web seldom passes on connections inside a cluster.
//
// It lies under allreduce because that is the lowest room that connects; it knows nothing of sums.
//
// Nothing here tries again later. The callers do, since they know what they wait for and say so.
package dial
