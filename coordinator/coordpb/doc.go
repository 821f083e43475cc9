// Package coordpb holds the messages and gRPC services of the coordinator: for its workers, for its
// replicas and for users.
package coordpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative coord.proto replicas.proto jobs.proto blobs.proto

// ProtocolVersion changes whenever an older peer would misread a message, one of raft included. A
// coordinator refuses a worker of another version, and a replica another replica, with an error
// that names both. It is at most 127: replicas greet each other with it as one byte.
const ProtocolVersion = 2
