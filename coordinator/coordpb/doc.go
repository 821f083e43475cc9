// Package coordpb holds the messages and the gRPC service between the coordinator and its workers.
package coordpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative coord.proto replicas.proto jobs.proto blobs.proto

// ProtocolVersion changes whenever an older peer would misread a message, of raft's too. A coordinator refuses a worker, and a
// replica another replica, of another version and names both. At most 127: replicas greet each other with it as one byte.
const ProtocolVersion = 2
