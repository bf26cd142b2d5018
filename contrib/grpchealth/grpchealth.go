// Package grpchealth makes a probe of the gRPC health service, version 1.
//
// It is a module of its own, so that other users do not depend on gRPC.
package grpchealth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/capreg/registry/health"
)

// Probe returns a probe that asks the server on the other side of conn how
// service is; the empty service is the server as a whole. It is well when the
// answer is SERVING, and fails with any other.
//
// The probe blocks until the answer is there or its context ends; it does not
// wait for a connection that is known to be broken. It may be used by several
// goroutines at once, and conn remains the caller's. Its error is one line, and
// where the call itself failed it keeps the status: [errors.As] and the function
// FromError of package status find it.
func Probe(conn grpc.ClientConnInterface, service string) health.Probe {
	shown := "gRPC health of the server: "
	if service != "" {
		shown = fmt.Sprintf("gRPC health of %q: ", service)
	}
	return func(ctx context.Context) error {
		if conn == nil {
			return &failure{shown, errNoConnection}
		}
		answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		if err == nil {
			err = judge(answer.GetStatus())
		}
		if err != nil {
			return &failure{shown, err}
		}
		return nil
	}
}

var errNoConnection = errors.New("there is no connection")

func judge(status grpc_health_v1.HealthCheckResponse_ServingStatus) error {
	var words string
	switch status {
	case grpc_health_v1.HealthCheckResponse_SERVING:
		return nil
	case grpc_health_v1.HealthCheckResponse_NOT_SERVING:
		words = "it does not serve"
	case grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN:
		words = "the server does not know the service"
	case grpc_health_v1.HealthCheckResponse_UNKNOWN:
		words = "the server does not know how it is"
	default:
		words = "the server answered with a status that is not known here"
	}
	return fmt.Errorf("%s (%s)", words, status)
}

// failure is an error in one line, whatever its text contains.
type failure struct {
	prefix string
	err    error
}

func (f *failure) Error() string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, f.prefix+f.err.Error())
}

func (f *failure) Unwrap() error { return f.err }
