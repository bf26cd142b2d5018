package sdktest

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

func grpcClients() []Client {
	return []Client{{Name: "grpc-go", Module: "google.golang.org/grpc", Retries: "`grpc.WithDisableRetry()`", try: tryGRPC}}
}

// grpcServer answers each call with one status.
type grpcServer struct {
	grpc_health_v1.UnimplementedHealthServer

	requests atomic.Int64
	answer   error
	hangs    bool
}

func (s *grpcServer) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	s.requests.Add(1)
	if s.hangs {
		<-ctx.Done()
	}
	return nil, s.answer
}

func (s *grpcServer) Watch(_ *grpc_health_v1.HealthCheckRequest, to grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	s.requests.Add(1)
	if err := to.Send(&grpc_health_v1.HealthCheckResponse{}); err != nil {
		return err
	}
	return s.answer
}

// grpcSays returns the status that is nearest to the fault; false where none is.
func grpcSays(fault Fault) (err error, ok bool) {
	code, known := map[string]codes.Code{
		"400": codes.InvalidArgument, "401": codes.Unauthenticated, "403": codes.PermissionDenied, "404": codes.NotFound,
		"409": codes.AlreadyExists, "429": codes.ResourceExhausted, "429 body": codes.ResourceExhausted, "500": codes.Internal,
		"501": codes.Unimplemented, "503": codes.Unavailable, "503 seconds": codes.Unavailable, "422": codes.OutOfRange,
		"dead key": codes.Unauthenticated, "in stream": codes.Unavailable, "408": codes.DeadlineExceeded,
		"deadlock": codes.Aborted, "429 quota": codes.ResourceExhausted,
	}[fault.Name]
	if !known {
		return nil, false
	}
	said := status.New(code, "text of the server")
	var detail protoadapt.MessageV1
	switch fault.Name {
	case "429 body", "503 seconds":
		detail = &errdetails.RetryInfo{RetryDelay: durationpb.New(delay)}
	case "dead key":
		detail = &errdetails.ErrorInfo{Reason: "API_KEY_INVALID", Domain: "example.com"}
	case "429 quota":
		detail = &errdetails.ErrorInfo{Reason: "BILLING_DISABLED", Domain: "example.com"}
	}
	if detail != nil {
		var err error
		if said, err = said.WithDetails(detail); err != nil {
			return err, false
		}
	}
	return said.Err(), true
}

func tryGRPC(ctx context.Context, fault Fault) (Outcome, error) {
	switch fault.Trouble {
	case HTML, Cut, Reset, BadTLS:
		return tryGRPCOverHTTP(ctx, fault)
	default:
	}
	answer, known := grpcSays(fault)
	if !known && (fault.Trouble == None || fault.Trouble == InStream) {
		return Outcome{}, nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return Outcome{}, err
	}
	played := &grpcServer{answer: answer, hangs: fault.Trouble == Hangs}
	s := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(s, played)
	done := make(chan error, 1)
	go func() { done <- s.Serve(listener) }()
	err, failed := askGRPC(ctx, fault, listener.Addr().String(), insecure.NewCredentials())
	s.Stop()
	if ended := <-done; ended != nil && !errors.Is(ended, grpc.ErrServerStopped) {
		failed = errors.Join(failed, ended)
	}
	return Outcome{Played: true, Err: err, Requests: played.requests.Load()}, failed
}

// tryGRPCOverHTTP lets a server that is none of gRPC answer.
func tryGRPCOverHTTP(ctx context.Context, fault Fault) (Outcome, error) {
	s := startServer(fault, answer{status: fault.Status, kind: "text/html", body: page}, nil)
	defer s.Close()
	using := insecure.NewCredentials()
	if fault.Trouble == BadTLS {
		using = credentials.NewTLS(nil)
	}
	err, failed := askGRPC(ctx, fault, s.Listener.Addr().String(), using)
	return Outcome{Played: true, Err: err, Requests: s.requests.Load()}, failed
}

func askGRPC(ctx context.Context, fault Fault, address string, using credentials.TransportCredentials) (err, failed error) {
	p, end, failed := placeOf(ctx, fault, "http://"+address)
	if failed != nil {
		return nil, failed
	}
	defer end()
	connection, failed := grpc.NewClient("passthrough:///"+p.host(), grpc.WithDisableRetry(), grpc.WithTransportCredentials(using),
		grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) { return p.dial(ctx, "tcp", to) }))
	if failed != nil {
		return nil, failed
	}
	defer func() { failed = errors.Join(failed, connection.Close()) }()
	limit := time.Minute
	if fault.Trouble == Hangs {
		limit = patience
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	client := grpc_health_v1.NewHealthClient(connection)
	if fault.Trouble != InStream {
		_, err = client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		return err, nil
	}
	stream, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	for err == nil {
		_, err = stream.Recv()
	}
	return err, nil
}
