// Package registrygrpc gives fail-over to gRPC clients, without a change to their code.
//
// A [Conn] is a [grpc.ClientConnInterface] over a service whose providers are connections. A generated stub over it
// sends each RPC to the best provider, and to the next one when that fails:
//
//	var Words = registry.NewService[*grpc.ClientConn]("words")
//
//	near, err := grpc.NewClient("near.internal:443", credentials, grpc.WithDisableRetry())
//	...
//	Words.Register(ctx, reg, registry.Provider[*grpc.ClientConn]{Name: "near", Instance: near})
//	...
//	conn, err := registrygrpc.NewConn(Words.Bind(reg, registry.Query{}), registrygrpc.Options{})
//	client := wordspb.NewWordsClient(conn)
//
// # What it promises
//
//   - A unary RPC is a [registry.Call]: limits, cooldowns, breakers, retries, budgets, hooks, timeouts and reports are its own.
//     The status and its details decide, as package verdict says: a RetryInfo is heeded.
//   - A stream moves on until its first message has been received; that commits it, and so does a header that
//     Header has returned. What was sent before is sent again to the next provider, up to [Options.MaxReplay]
//     bytes; a message beyond that commits the stream when it is sent. After that, an error is the stream's.
//   - The end of a stream is its outcome, and it is reported once. A stream that its reader leaves, by the end of
//     its context, says nothing about the provider.
//   - An RPC with side effects is marked by [With]([registry.OnceOnly]()): it is not sent a second time, unless the status says
//     that nothing was processed, or the connection has never had a stream for it. Unavailable alone proves neither.
//   - Header, Trailer and Peer are those of the attempt that the RPC ended with; OnFinish runs once.
//   - When no provider is left, the error has the status of the last one, with its details, and wraps the
//     [registry.CallError] or [registry.UnavailableError]. See [StatusOf] for what a server should tell of it.
//   - No goroutine outlives an RPC, but for those of the connections.
//
// The registry does not dial or close connections: they are their owners', or those of a [registry.Provider] with
// a Factory.
//
// # What gRPC does by itself
//
// Connections have retries of their own, by their service config, and hide failures with them. Turn them off with
// [grpc.WithDisableRetry]; what is left is the repetition of RPCs that a server has certainly not seen, which is
// harmless. Leave [grpc.WaitForReady] off, so that a connection that is down fails at once, and give connections
// [google.golang.org/grpc/keepalive] parameters, so that one that is dead is found while a stream is silent. A
// connection to several addresses balances among them; the registry sees one provider.
//
// # Servers
//
// [UnaryServerInterceptor] and [StreamServerInterceptor] take correlation, trace and caller of an RPC into its context, and
// answer with the [StatusOf] an error. [HealthServer] tells the health of a registry by the protocol grpc.health.v1; package
// grpchealth has probes for it.
package registrygrpc
