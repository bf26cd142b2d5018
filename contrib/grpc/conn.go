package registrygrpc

import (
	"context"
	"errors"
	"net"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/capreg/registry"
)

var (
	// ErrFirstMessage is the cause of a stream whose first message did not arrive in time.
	ErrFirstMessage = errors.New("no first message in time")
	// ErrStalled is the cause of a stream whose next message did not arrive in time.
	ErrStalled = errors.New("stream stalled")
)

// Conn is a [grpc.ClientConnInterface] that sends each RPC to a provider of a service, and to the next one when that
// fails. Use [NewConn] to create one. It is safe for concurrent use, needs no closing and starts no goroutine but
// for the messages of a stream that moves on.
type Conn[C grpc.ClientConnInterface] struct {
	resolver *registry.Resolver[C]
	options  Options
}

// NewConn returns a connection over the providers that the resolver gives: C is [*grpc.ClientConn], or any
// other such connection. The error is a [registry.FieldError] that matches [registry.ErrInvalid].
func NewConn[C grpc.ClientConnInterface](resolver *registry.Resolver[C], options Options) (*Conn[C], error) {
	if resolver == nil {
		return nil, refuse("resolver", "nil", "a resolver made by Bind")
	}
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Conn[C]{resolver: resolver, options: options}, nil
}

// begin checks an RPC and sorts its options.
func (c *Conn[C]) begin(ctx context.Context, method string, options []grpc.CallOption) (*rpc, error) {
	if c == nil || c.resolver == nil {
		return nil, refuse("Conn", "nil", "one made by NewConn")
	}
	if ctx == nil {
		return nil, refuse("ctx", "nil", "a context")
	}
	r := newRPC(ctx, c.options, method, options)
	return r, checkCall("With", r.call)
}

// Invoke sends a unary RPC to the best provider, and to the next one as [registry.Call] does, which bounds how
// long it blocks. The error has the status of the last provider and wraps a [registry.CallError], or a
// [registry.UnavailableError] where no provider could be asked; bad input is an error that matches [registry.ErrInvalid].
func (c *Conn[C]) Invoke(ctx context.Context, method string, args, reply any, options ...grpc.CallOption) error {
	r, err := c.begin(ctx, method, options)
	if err != nil {
		return err
	}
	ended := false
	defer func() {
		if !ended { // a panic
			r.finish(errPanicked)
		}
	}()
	_, err = registry.Call(ctx, c.resolver, func(ctx context.Context, conn C) (struct{}, error) {
		return struct{}{}, r.invoke(ctx, conn, args, reply)
	}, r.call...)
	err = conclude(ctx, err)
	ended = true
	r.finish(err)
	return err
}

// invoke is one attempt of a unary RPC.
func (r *rpc) invoke(ctx context.Context, conn grpc.ClientConnInterface, args, reply any) error {
	r.reset()
	f := failure{ctx: ctx, request: args, unary: true}
	to := peer.Peer{Addr: noPeer}
	options := slices.Concat(r.options, []grpc.CallOption{grpc.Header(&f.header), grpc.Trailer(&f.trailer), grpc.Peer(&to)})
	f.err = conn.Invoke(r.outgoing(ctx), r.method, args, reply, options...)
	if f.err == nil {
		return nil
	}
	_, ofGRPC := conn.(*grpc.ClientConn)
	f.unsent = ofGRPC && to.Addr == noPeer
	f.ofGRPC = ofGRPC
	return f.judge()
}

// noPeer is the address of a peer until there is a stream to one.
//
//nolint:gochecknoglobals // compared by identity
var noPeer net.Addr = &net.UnixAddr{Name: "no stream", Net: "none"}

// failure is an error of an attempt, with what tells its cause.
type failure struct {
	err             error
	ctx             context.Context //nolint:containedctx // of the attempt
	request         any             // the message; nil: of a stream
	unary           bool
	ofGRPC          bool // the connection is one of gRPC itself
	unsent          bool // the connection has never had a stream for it
	header, trailer metadata.MD
}
