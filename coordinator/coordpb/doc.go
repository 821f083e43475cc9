// Package coordpb holds the messages and the gRPC service between the coordinator and its workers.
package coordpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative coord.proto replicas.proto jobs.proto

// ProtocolVersion changes whenever an older peer would misread a message. A coordinator refuses a worker of
// another version and names both.
const ProtocolVersion = 2
