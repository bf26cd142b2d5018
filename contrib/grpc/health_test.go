package registrygrpc_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/capreg/registry"
	registrygrpc "github.com/capreg/registry/contrib/grpc"
	"github.com/capreg/registry/contrib/grpc/grpchealth"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
)

var errSick = errors.New("sick")

// tell starts a server of the health of a registry, and returns a connection to it.
func tell(t *testing.T, reg *registry.Registry, options registrygrpc.HealthOptions) *grpc.ClientConn {
	t.Helper()
	service, err := registrygrpc.NewHealthServer(reg, options)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends with the server
	require.NoError(t, err)
	running, served := grpc.NewServer(), make(chan error, 1)
	healthpb.RegisterHealthServer(running, service)
	go func() { served <- running.Serve(listener) }()
	t.Cleanup(func() {
		running.Stop()
		require.NoError(t, <-served)
	})
	return dial(t, listener.Addr().String())
}

func TestHealthServer_ChecksServicesGroupsAndAll(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	defer func() { require.NoError(t, reg.Close(context.Background())) }()
	one := testkit.Add(t, reg, testkit.Provider{Name: "one"})
	conn := tell(t, reg, registrygrpc.HealthOptions{Services: map[string]string{"acme.v1.Chat": testkit.Chat.Name()}})
	known := []string{"", testkit.Chat.Name(), "acme.v1.Chat", health.Readiness}
	for _, service := range known {
		require.NoError(t, grpchealth.Probe(conn, grpchealth.Options{Service: service})(t.Context()), service)
	}
	require.Equal(t, codes.NotFound, status.Code(grpchealth.Probe(conn, grpchealth.Options{Service: "other"})(t.Context())))

	require.NoError(t, one.MarkUnhealthy(errSick))
	for _, service := range known {
		require.ErrorContains(t, grpchealth.Probe(conn, grpchealth.Options{Service: service})(t.Context()), "NOT_SERVING", service)
	}
	require.NoError(t, grpchealth.Probe(conn, grpchealth.Options{Service: health.Liveness})(t.Context()), "nothing is in this group")

	list, err := healthpb.NewHealthClient(conn).List(t.Context(), &healthpb.HealthListRequest{})
	require.NoError(t, err)
	for _, service := range known {
		require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, list.GetStatuses()[service].GetStatus(), service)
	}
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, list.GetStatuses()[health.Liveness].GetStatus())
	require.Len(t, list.GetStatuses(), len(known)+1)
}

func TestHealthServer_WatchPushesChangesUntilTheRegistryCloses(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	conn := tell(t, reg, registrygrpc.HealthOptions{})
	stream, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{Service: testkit.Chat.Name()})
	require.NoError(t, err)
	requireNext := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		answer, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, want, answer.GetStatus())
	}
	requireNext(healthpb.HealthCheckResponse_SERVICE_UNKNOWN)
	one := testkit.Add(t, reg, testkit.Provider{Name: "one"})
	requireNext(healthpb.HealthCheckResponse_SERVING)
	require.NoError(t, one.MarkUnhealthy(errSick))
	requireNext(healthpb.HealthCheckResponse_NOT_SERVING)
	require.NoError(t, one.MarkHealthy())
	requireNext(healthpb.HealthCheckResponse_SERVING)
	require.NoError(t, reg.Close(context.Background()))
	for err == nil {
		_, err = stream.Recv()
	}
	requireStatus(t, err, codes.Unavailable, "the registry is closed")
}

func TestNewHealthServer_RefusesNoRegistry(t *testing.T) {
	t.Parallel()
	_, err := registrygrpc.NewHealthServer(nil, registrygrpc.HealthOptions{})
	require.ErrorIs(t, err, registry.ErrInvalid)
}
