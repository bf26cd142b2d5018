package grpchealth_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/capreg/registry/contrib/grpc/grpchealth"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type servingStatus = grpc_health_v1.HealthCheckResponse_ServingStatus

// serve runs a server on a listener until the test ends.
func serve(t *testing.T, listener net.Listener, service grpc_health_v1.HealthServer) *grpc.Server {
	t.Helper()
	server := grpc.NewServer()
	if service != nil {
		grpc_health_v1.RegisterHealthServer(server, service)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-served)
	})
	return server
}

func connect(t *testing.T, target string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// inMemory returns a connection to a server within the process.
func inMemory(t *testing.T, service grpc_health_v1.HealthServer) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	serve(t, listener, service)
	return connect(t, "passthrough:memory", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return listener.DialContext(ctx)
	}))
}

// overLoopback returns a connection to a server by way of a socket.
func overLoopback(t *testing.T, service grpc_health_v1.HealthServer) *grpc.ClientConn {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends with the server
	require.NoError(t, err)
	serve(t, listener, service)
	return connect(t, listener.Addr().String())
}

// teller is a health service in one function.
type teller struct {
	grpc_health_v1.UnimplementedHealthServer

	check func(ctx context.Context) (*grpc_health_v1.HealthCheckResponse, error)
}

func (s teller) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return s.check(ctx)
}

func says(answer servingStatus) teller {
	return teller{check: func(context.Context) (*grpc_health_v1.HealthCheckResponse, error) {
		return &grpc_health_v1.HealthCheckResponse{Status: answer}, nil
	}}
}

func TestProbe_HealthyWhileServing(t *testing.T) {
	t.Parallel()
	for name, connection := range map[string]func(*testing.T, grpc_health_v1.HealthServer) *grpc.ClientConn{
		"in memory": inMemory, "over loopback": overLoopback,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := health.NewServer()
			conn := connection(t, service)
			service.SetServingStatus("words", grpc_health_v1.HealthCheckResponse_SERVING)
			whole, words := grpchealth.Probe(conn, grpchealth.Options{}), grpchealth.Probe(conn, grpchealth.Options{Service: "words"})
			pictures := grpchealth.Probe(conn, grpchealth.Options{Service: "pictures"})
			require.NoError(t, whole(t.Context()))
			require.NoError(t, words(t.Context()))

			err := pictures(t.Context())
			require.ErrorContains(t, err, `gRPC health of "pictures": `)
			require.Equal(t, codes.NotFound, status.Code(err))

			service.SetServingStatus("words", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
			require.EqualError(t, words(t.Context()), `gRPC health of "words": it does not serve (NOT_SERVING)`)
			require.NoError(t, whole(t.Context()))

			service.Shutdown()
			require.EqualError(t, whole(t.Context()), "gRPC health of the server: it does not serve (NOT_SERVING)")
			service.Resume()
			require.NoError(t, words(t.Context()))
		})
	}
}

func TestProbe_OtherAnswersFail(t *testing.T) {
	t.Parallel()
	for answer, want := range map[servingStatus]string{
		grpc_health_v1.HealthCheckResponse_NOT_SERVING:     "it does not serve (NOT_SERVING)",
		grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN: "the server does not know the service (SERVICE_UNKNOWN)",
		grpc_health_v1.HealthCheckResponse_UNKNOWN:         "the server does not know how it is (UNKNOWN)",
		77: "the server answered with a status that is not known here (77)",
	} {
		err := grpchealth.Probe(inMemory(t, says(answer)), grpchealth.Options{Service: "words"})(t.Context())
		require.EqualError(t, err, `gRPC health of "words": `+want)
	}
}

func TestProbe_ErrorKeepsTheStatusInOneLine(t *testing.T) {
	t.Parallel()
	conn := inMemory(t, teller{check: func(context.Context) (*grpc_health_v1.HealthCheckResponse, error) {
		return nil, status.Error(codes.ResourceExhausted, "too many\nprobes")
	}})
	err := grpchealth.Probe(conn, grpchealth.Options{Service: "two\nlines"})(t.Context())
	require.EqualError(t, err, `gRPC health of "two\nlines": rpc error: code = ResourceExhausted desc = too many probes`)
	var withStatus interface{ GRPCStatus() *status.Status }
	require.ErrorAs(t, err, &withStatus)
	require.Equal(t, "too many\nprobes", withStatus.GRPCStatus().Message())
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Equal(t, verdict.ClassRateLimited, verdict.Of(err).Class)
}

func TestProbe_FailsWithoutAHealthService(t *testing.T) {
	t.Parallel()
	conn := inMemory(t, nil)
	err := grpchealth.Probe(conn, grpchealth.Options{})(t.Context())
	require.Equal(t, codes.Unimplemented, status.Code(err))
	require.NoError(t, grpchealth.Probe(conn, grpchealth.Options{AcceptUnimplemented: true})(t.Context()), "it answers")
}

func TestProbe_FailsWithoutAServer(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends at once
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	probe := grpchealth.Probe(connect(t, listener.Addr().String()), grpchealth.Options{})
	err = probe(t.Context())
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.NotContains(t, err.Error(), "\n")

	require.EqualError(t, grpchealth.Probe(nil, grpchealth.Options{})(t.Context()), "gRPC health of the server: there is no connection")
}

func TestProbe_HangingServerFailsWithTheContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	conn := overLoopback(t, teller{check: func(ctx context.Context) (*grpc_health_v1.HealthCheckResponse, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	probe := grpchealth.Probe(conn, grpchealth.Options{})
	require.Equal(t, codes.Canceled, status.Code(probe(ctx)))
	require.Equal(t, codes.Canceled, status.Code(probe(ctx)), "before anything")

	expired, cancelExpired := context.WithTimeout(t.Context(), 0)
	defer cancelExpired()
	require.Equal(t, codes.DeadlineExceeded, status.Code(probe(expired)))
}

func TestWatch_TellsEachChangeOnce(t *testing.T) {
	t.Parallel()
	service := health.NewServer()
	conn := overLoopback(t, service)
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan error)
	ended := make(chan error, 1)
	go func() {
		ended <- grpchealth.Watch(ctx, conn, grpchealth.Options{Service: "words"}, func(err error) { told <- err })
	}()
	require.EqualError(t, <-told, `gRPC health of "words": the server does not know the service (SERVICE_UNKNOWN)`)
	service.SetServingStatus("words", grpc_health_v1.HealthCheckResponse_SERVING)
	require.NoError(t, <-told)
	service.Shutdown()
	require.EqualError(t, <-told, `gRPC health of "words": it does not serve (NOT_SERVING)`)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// ends is a health service whose watches end after their first answer, and then fail, and then go on.
type ends struct {
	grpc_health_v1.UnimplementedHealthServer

	watches chan func(stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error
}

func (s ends) Watch(_ *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	return (<-s.watches)(stream)
}

func TestWatch_BeginsAgainBeforeItCountsAsAFailure(t *testing.T) {
	t.Parallel()
	type stream = grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]
	well := func(to stream) error {
		return to.Send(&grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING})
	}
	service := ends{watches: make(chan func(stream) error, 4)}
	for _, watch := range []func(stream) error{
		well,
		well, // nothing is told of the end between the two
		func(stream) error { return status.Error(codes.Unavailable, "gone") },
		func(to stream) error {
			if err := well(to); err != nil {
				return err
			}
			<-to.Context().Done()
			return nil
		},
	} {
		service.watches <- watch
	}
	conn := overLoopback(t, service)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told := make(chan error)
	ended := make(chan error, 1)
	go func() {
		ended <- grpchealth.Watch(ctx, conn, grpchealth.Options{}, func(err error) { told <- err })
	}()
	require.NoError(t, <-told)
	require.Equal(t, codes.Unavailable, status.Code(<-told))
	require.NoError(t, <-told)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestWatch_EndsWithoutTheMethod(t *testing.T) {
	t.Parallel()
	conn := inMemory(t, nil)
	var told []error
	note := func(err error) { told = append(told, err) }
	err := grpchealth.Watch(t.Context(), conn, grpchealth.Options{}, note)
	require.Equal(t, codes.Unimplemented, status.Code(err))
	err = grpchealth.Watch(t.Context(), conn, grpchealth.Options{AcceptUnimplemented: true}, note)
	require.Equal(t, codes.Unimplemented, status.Code(err), "there is nothing to watch")
	require.Error(t, grpchealth.Watch(t.Context(), nil, grpchealth.Options{}, note))
	require.Len(t, told, 3)
	require.Equal(t, codes.Unimplemented, status.Code(told[0]))
	require.NoError(t, told[1])
	require.ErrorContains(t, told[2], "there is no connection")
}

func TestProbe_IsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	probe := grpchealth.Probe(overLoopback(t, health.NewServer()), grpchealth.Options{})
	var running sync.WaitGroup
	for range 32 {
		running.Go(func() {
			if err := probe(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
}

func ExampleProbe() {
	listener := bufconn.Listen(1 << 16)
	server, service := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, service)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	conn, err := grpc.NewClient("passthrough:memory",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		panic(err)
	}
	defer func() { _ = conn.Close() }()

	probe := grpchealth.Probe(conn, grpchealth.Options{}) // for health.Policy
	fmt.Println(probe(context.Background()))
	service.Shutdown()
	fmt.Println(probe(context.Background()))
	// Output:
	// <nil>
	// gRPC health of the server: it does not serve (NOT_SERVING)
}

func ExampleWatch() {
	listener := bufconn.Listen(1 << 16)
	server, service := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, service)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	conn, err := grpc.NewClient("passthrough:memory",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		panic(err)
	}
	defer func() { _ = conn.Close() }()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err = grpchealth.Watch(ctx, conn, grpchealth.Options{}, func(err error) { // such as MarkHealthy and MarkUnhealthy
		fmt.Println(err)
		if err == nil {
			service.Shutdown()
		} else {
			cancel()
		}
	})
	fmt.Println(err)
	// Output:
	// <nil>
	// gRPC health of the server: it does not serve (NOT_SERVING)
	// context canceled
}
