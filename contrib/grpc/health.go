package registrygrpc

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
)

// refreshInterval bounds how late a watch tells what comes without an event, such as that a program stops.
const refreshInterval = time.Second

// HealthOptions configure a [HealthServer]. The zero value of each field is its default.
type HealthOptions struct {
	// Services has the service of the registry that stands behind a service of gRPC, by the full name of that one, such as
	// "registry.words.v1.Words". Default: none, so that services are known by the names that they have in the registry.
	Services map[string]string
	// Groups are the groups of [health.Policy.Groups] that are known as services as well. A service of such a name goes
	// first. Default: [health.Readiness] and [health.Liveness].
	Groups []string
}

// HealthServer tells the health of a registry by the protocol grpc.health.v1. Register it with
// grpc_health_v1.RegisterHealthServer. The empty service is the registry as a whole; a service is SERVING while it is
// healthy or degraded, as [registry.Registry.Health] says, and probes nothing. It is safe for concurrent use and starts no
// goroutine.
type HealthServer struct {
	healthpb.UnimplementedHealthServer

	registry *registry.Registry
	options  HealthOptions
}

// NewHealthServer returns a server of the health of the registry. The error is a [registry.FieldError] that matches
// [registry.ErrInvalid].
func NewHealthServer(reg *registry.Registry, options HealthOptions) (*HealthServer, error) {
	if reg == nil {
		return nil, refuse("reg", "nil", "a registry")
	}
	if options.Groups == nil {
		options.Groups = []string{health.Readiness, health.Liveness}
	}
	return &HealthServer{registry: reg, options: options}, nil
}

// Check returns the health of a service as it is known now; NotFound for one that is not known.
func (s *HealthServer) Check(_ context.Context, request *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	is := s.statusOf(request.GetService())
	if is == healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, status.Error(codes.NotFound, "unknown service")
	}
	return &healthpb.HealthCheckResponse{Status: is}, nil
}

// List returns the health of the registry, of its services, by both their names, and of the groups.
func (s *HealthServer) List(context.Context, *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	all := s.registry.Health()
	statuses := map[string]*healthpb.HealthCheckResponse{"": {Status: serving(all.State)}}
	for _, group := range s.options.Groups {
		statuses[group] = &healthpb.HealthCheckResponse{Status: serving(s.registry.Health(group).State)}
	}
	for _, service := range all.Services {
		statuses[service.Name] = &healthpb.HealthCheckResponse{Status: serving(service.State)}
	}
	for name, behind := range s.options.Services {
		if is, ok := statuses[behind]; ok {
			statuses[name] = is
		}
	}
	return &healthpb.HealthListResponse{Statuses: statuses}, nil
}

// Watch sends the health of a service at once and at each change, SERVICE_UNKNOWN for one that is not known yet. It ends
// with Unavailable when the registry is closed, so that it keeps no server from stopping gracefully.
func (s *HealthServer) Watch(request *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	events := s.registry.Subscribe(1)
	defer events.Close()
	ctx := stream.Context()
	for last := healthpb.HealthCheckResponse_ServingStatus(-1); ; {
		if is := s.statusOf(request.GetService()); is != last {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: is}); err != nil {
				return err
			}
			last = is
		}
		soon, cancel := context.WithTimeout(ctx, refreshInterval)
		_, err := events.Next(soon)
		cancel()
		switch {
		case ctx.Err() != nil:
			return status.FromContextError(ctx.Err()).Err()
		case errors.Is(err, registry.ErrClosed):
			return status.Error(codes.Unavailable, "the registry is closed")
		}
	}
}

// statusOf returns the health of a service, a group, or of all.
func (s *HealthServer) statusOf(service string) healthpb.HealthCheckResponse_ServingStatus {
	all := s.registry.Health()
	if service == "" {
		return serving(all.State)
	}
	name := service
	if behind, ok := s.options.Services[service]; ok {
		name = behind
	}
	at := slices.IndexFunc(all.Services, func(each health.Service) bool { return each.Name == name })
	switch {
	case at >= 0:
		return serving(all.Services[at].State)
	case slices.Contains(s.options.Groups, service):
		return serving(s.registry.Health(service).State)
	}
	return healthpb.HealthCheckResponse_SERVICE_UNKNOWN
}

func serving(state health.State) healthpb.HealthCheckResponse_ServingStatus {
	if state == health.Healthy || state == health.Degraded {
		return healthpb.HealthCheckResponse_SERVING
	}
	return healthpb.HealthCheckResponse_NOT_SERVING
}
