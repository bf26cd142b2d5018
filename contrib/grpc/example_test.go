package registrygrpc_test

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/capreg/registry"
	registrygrpc "github.com/capreg/registry/contrib/grpc"
	"github.com/capreg/registry/contrib/grpc/internal/wordspb"
)

// run starts a server, and returns a connection to it.
func run(s *server) (conn *grpc.ClientConn, stop func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends with the server
	if err != nil {
		panic(err)
	}
	running := grpc.NewServer()
	wordspb.RegisterWordsServer(running, s)
	go func() { _ = running.Serve(listener) }()
	conn, err = grpc.NewClient(listener.Addr().String(), grpc.WithDisableRetry(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	return conn, func() { _ = conn.Close(); running.Stop() }
}

// The stub is a generated one, which knows one connection; the registry knows the others.
func ExampleConn() {
	near, stopNear := run(fails(status.Error(codes.Unavailable, "down")))
	defer stopNear()
	far, stopFar := run(&server{name: "far"})
	defer stopFar()

	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	for _, p := range []registry.Provider[*grpc.ClientConn]{
		{Name: "near", Instance: near}, {Name: "far", Instance: far, Group: 1},
	} {
		if _, err := words.Register(ctx, reg, p); err != nil {
			panic(err)
		}
	}
	conn, err := registrygrpc.NewConn(words.Bind(reg, registry.Query{}), registrygrpc.Options{})
	if err != nil {
		panic(err)
	}
	client := wordspb.NewWordsClient(conn)
	reply, err := client.Say(ctx, &wordspb.SayRequest{Word: "hello"})
	fmt.Println(reply.GetWord(), "from", reply.GetServer(), err)
	// An RPC with side effects is sent once.
	_, err = client.Say(ctx, &wordspb.SayRequest{Word: "pay"}, registrygrpc.With(registry.OnceOnly()))
	fmt.Println(status.Code(err))
	// Output:
	// hello from far <nil>
	// Unavailable
}

func ExampleNewHealthServer() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	service, err := registrygrpc.NewHealthServer(reg, registrygrpc.HealthOptions{})
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, service)

	answer, err := service.Check(ctx, &healthpb.HealthCheckRequest{})
	fmt.Println(answer.GetStatus(), err) // nothing is registered
	// Output:
	// NOT_SERVING <nil>
}

// A server tells its clients what its own providers have said only where that is about the request.
func ExampleStatusOf() {
	err := fmt.Errorf("answer: %w", &registry.UnavailableError{Service: "words"})
	fmt.Println(registrygrpc.StatusOf(err))
	// Output:
	// rpc error: code = Unavailable desc = no provider is available
}
