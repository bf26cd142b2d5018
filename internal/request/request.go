// Package request keeps what belongs to a request on its way through a program in its context, where those that send it
// on and those that write about it find it.
package request

import "context"

// Metadata describes a request on its way, beside its deadline. Each text may be empty.
type Metadata struct {
	Correlation             string // identifies it in logs
	TraceParent, TraceState string // its place in a trace, as W3C Trace Context has it
	Caller                  string // the party that is answerable
}

type metadataKey struct{}

// With returns a context with the metadata, which replace those that ctx has.
func With(ctx context.Context, m Metadata) context.Context {
	return context.WithValue(ctx, metadataKey{}, m)
}

// Of returns the metadata of the context; the zero value without any.
func Of(ctx context.Context) Metadata {
	m, _ := ctx.Value(metadataKey{}).(Metadata)
	return m
}
