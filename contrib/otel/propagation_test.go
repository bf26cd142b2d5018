package registryotel_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/capreg/registry"
	registrygrpc "github.com/capreg/registry/contrib/grpc"
	registryotel "github.com/capreg/registry/contrib/otel"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/registryhttp"
)

// traced returns a registry whose calls are traced.
func traced(t *testing.T) (*registry.Registry, *recorded) {
	t.Helper()
	r := record()
	reg := testkit.New(t, registry.Options{})
	observer, err := registryotel.Observe(reg, registryotel.Options{TracerProvider: r.provider})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, observer.Close(context.Background()))
		require.NoError(t, reg.Close(context.Background()))
	})
	return reg, r
}

// requirePlaces checks that each server, in order, was told the place of the attempt that asked it.
func (r *recorded) requirePlaces(t *testing.T, told chan string, servers ...string) {
	t.Helper()
	places := make(map[string]string)
	for _, s := range r.spans.GetSpans() {
		if name, isAttempt := strings.CutPrefix(s.Name, "attempt "); isAttempt {
			places[name] = "00-" + s.SpanContext.TraceID().String() + "-" + s.SpanContext.SpanID().String() + "-01"
		}
	}
	require.Len(t, places, len(servers))
	for _, server := range servers {
		require.Equal(t, places[server], <-told, server)
	}
	r.spans.Reset()
}

// The trace of a server goes on below the attempt that asked it, also where the request has come with a place of its own.
func TestObserve_HTTPServersAreToldThePlaceOfTheirAttempt(t *testing.T) {
	t.Parallel()
	reg, r := traced(t)
	service := registry.NewService[*registryhttp.Upstream]("servers")
	told := make(chan string, 2)
	for _, server := range []struct {
		name string
		code int
	}{{"a", http.StatusInternalServerError}, {"b", http.StatusOK}} {
		listening := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			told <- request.Header.Get(registryhttp.HeaderTraceParent)
			w.WriteHeader(server.code)
		}))
		t.Cleanup(listening.Close)
		upstream, err := registryhttp.NewUpstream(listening.URL, registryhttp.UpstreamOptions{Propagate: true})
		require.NoError(t, err)
		_, err = service.Register(t.Context(), reg, registry.Provider[*registryhttp.Upstream]{
			Name: server.name, Instance: upstream, Breaker: testkit.NeverOpens(),
		})
		require.NoError(t, err)
	}
	transport, err := registryhttp.NewTransport(service.Bind(reg, registry.Query{}), registryhttp.Options{})
	require.NoError(t, err)
	t.Cleanup(transport.CloseIdleConnections)
	for _, came := range []string{"", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://servers/", nil)
		require.NoError(t, err)
		if came != "" {
			request.Header.Set(registryhttp.HeaderTraceParent, came)
		}
		response, err := transport.RoundTrip(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusOK, response.StatusCode)
		r.requirePlaces(t, told, "a", "b")
	}
}

// checker answers checks of health.
type checker struct {
	health.UnimplementedHealthServer

	told chan string
	err  error
}

func (c *checker) tell(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	c.told <- strings.Join(md.Get(registrygrpc.KeyTraceParent), ",")
	return c.err
}

func (c *checker) Check(ctx context.Context, _ *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
	return &health.HealthCheckResponse{}, c.tell(ctx)
}

func (c *checker) Watch(_ *health.HealthCheckRequest, stream health.Health_WatchServer) error {
	if err := c.tell(stream.Context()); err != nil {
		return err
	}
	return stream.Send(&health.HealthCheckResponse{})
}

func TestObserve_GRPCServersAreToldThePlaceOfTheirAttempt(t *testing.T) {
	t.Parallel()
	reg, r := traced(t)
	service := registry.NewService[*grpc.ClientConn]("servers")
	told := make(chan string, 2)
	for name, err := range map[string]error{"a": status.Error(codes.Unavailable, "down"), "b": nil} {
		listener, listened := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, listened)
		server := grpc.NewServer()
		health.RegisterHealthServer(server, &checker{told: told, err: err})
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()
		t.Cleanup(func() { server.Stop(); require.NoError(t, <-served) })
		conn, dialled := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, dialled)
		t.Cleanup(func() { require.NoError(t, conn.Close()) })
		_, registered := service.Register(t.Context(), reg, registry.Provider[*grpc.ClientConn]{
			Name: name, Instance: conn, Group: int(name[0]), Breaker: testkit.NeverOpens(),
		})
		require.NoError(t, registered)
	}
	conn, err := registrygrpc.NewConn(service.Bind(reg, registry.Query{}), registrygrpc.Options{Propagate: true})
	require.NoError(t, err)
	client := health.NewHealthClient(conn)
	_, err = client.Check(t.Context(), &health.HealthCheckRequest{})
	require.NoError(t, err)
	r.requirePlaces(t, told, "a", "b")

	stream, err := client.Watch(t.Context(), &health.HealthCheckRequest{})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Error(t, err, "it has ended")
	r.requirePlaces(t, told, "a", "b")
}
