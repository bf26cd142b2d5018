package registrygrpc

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/capreg/registry/registryhttp"
)

// ServerOptions configure [UnaryServerInterceptor] and [StreamServerInterceptor]. The zero value of each field is its
// default.
type ServerOptions struct {
	// Caller names the party that an RPC is from, by what it has proven, such as its certificate or its key. Default: none.
	Caller func(ctx context.Context) string
	// MaxTimeout bounds the time of each RPC, whatever its deadline. Default: the deadline alone does.
	MaxTimeout time.Duration
}

// UnaryServerInterceptor returns an interceptor that takes the correlation and the trace of an RPC, and its caller,
// into its context, where [registryhttp.MetadataOf] finds them, and gives errors their [StatusOf]. Metadata of
// another form than [registryhttp.Metadata] defines are ignored.
func UnaryServerInterceptor(options ServerOptions) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, cancel := options.incoming(ctx)
		defer cancel()
		reply, err := handler(ctx, request)
		return reply, StatusOf(err).Err()
	}
}

// StreamServerInterceptor is [UnaryServerInterceptor] for streams.
func StreamServerInterceptor(options ServerOptions) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, cancel := options.incoming(stream.Context())
		defer cancel()
		return StatusOf(handler(server, &serverStream{stream, ctx})).Err()
	}
}

// serverStream is a stream with another context.
type serverStream struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // what Context returns
}

// Context returns the context with what came in.
func (s *serverStream) Context() context.Context { return s.ctx }

// incoming returns the context of an RPC with what came in with it.
func (o *ServerOptions) incoming(ctx context.Context) (context.Context, context.CancelFunc) {
	md, _ := metadata.FromIncomingContext(ctx)
	first := func(key string) string {
		if values := md.Get(key); len(values) > 0 {
			return values[0]
		}
		return ""
	}
	m := registryhttp.Metadata{
		Correlation: first(KeyCorrelation), TraceParent: first(KeyTraceParent), TraceState: strings.Join(md.Get(KeyTraceState), ","),
	}
	if o.Caller != nil {
		m.Caller = o.Caller(ctx)
	}
	ctx = registryhttp.WithMetadata(ctx, m)
	if o.MaxTimeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, o.MaxTimeout)
}
