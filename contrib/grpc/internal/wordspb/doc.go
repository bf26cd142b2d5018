// Package wordspb has the code that is generated from words.proto: the service of the tests and examples.
package wordspb

// The code needs protoc, or another compiler, with protoc-gen-go v1.36.11 and protoc-gen-go-grpc v1.6.2.
//
//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative words.proto
//go:generate gofumpt -extra -w words.pb.go words_grpc.pb.go
