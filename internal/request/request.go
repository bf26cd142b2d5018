// Package request keeps what belongs to a request on its way through a program in its context, where those that send it
// on and those that write about it find it, and makes identifiers for it.
package request

import (
	"context"
	"math/rand/v2"
)

// Metadata describes a request on its way, beside its deadline. Each text may be empty.
type Metadata struct {
	Correlation             string // identifies it in logs
	TraceParent, TraceState string // its place in a trace, as W3C Trace Context has it
	Caller                  string // the party that is answerable
}

type metadataKey struct{}

// described is a context with metadata. It is one allocation, where that of package context would be two.
type described struct {
	context.Context

	metadata Metadata
}

// Value returns the metadata, or what the context has without them.
func (d *described) Value(key any) any {
	if key == (metadataKey{}) {
		return &d.metadata
	}
	return d.Context.Value(key)
}

// With returns a context with the metadata, which replace those that ctx has.
func With(ctx context.Context, m Metadata) context.Context { return &described{ctx, m} }

// Of returns the metadata of the context; the zero value without any.
func Of(ctx context.Context) Metadata {
	if m, ok := ctx.Value(metadataKey{}).(*Metadata); ok {
		return *m
	}
	return Metadata{}
}

// SenderKey is the key under which the context of an attempt has the transport that is asked to send the request, so that one
// that others have asked on the way does not take itself for that.
type SenderKey struct{}

// NewID returns a text that no other request has, of 26 letters and digits. It is no secret.
func NewID() string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" // as [crypto/rand.Text] has them, which costs three times as much
	var text [26]byte
	for i, half := range [...]uint64{rand.Uint64(), rand.Uint64()} { //nolint:gosec // see above
		for j := range len(text) / 2 {
			text[i*len(text)/2+j] = letters[half%32]
			half /= 32
		}
	}
	return string(text[:])
}
