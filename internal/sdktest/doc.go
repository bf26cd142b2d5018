// Package sdktest drives the real clients of HTTP APIs, gRPC and PostgreSQL against servers on this
// machine that fail in the ways the real ones do, and holds what package verdict has to make of each error.
//
// [Clients] and [Faults] span the table, [Expected] has the demand for each of its cells, [Measure]
// plays them all and [Document] writes docs/guide/sdk-errors.md, as does
//
//	go run ./internal/sdktest/table
//
// The bodies have the fields and codes of the real APIs, with texts of their own. Nothing leaves the machine.
package sdktest
