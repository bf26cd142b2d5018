// Package grpchealth makes probes of the gRPC health service, version 1.
package grpchealth

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/capreg/registry/health"
)

// Options configure [Probe] and [Watch]. The zero value of each field is its default.
type Options struct {
	// Service is the service that is asked for. Default: the server as a whole.
	Service string
	// AcceptUnimplemented counts the answer of a server that has no health service as well: it is there, and more
	// cannot be known. Default: it is a failure.
	AcceptUnimplemented bool
}

// Probe returns a probe that asks the server on the other side of conn how the service is. It is well when the
// answer is SERVING, and fails with any other.
//
// The probe blocks until the answer is there or its context ends; it does not
// wait for a connection that is known to be broken. It may be used by several
// goroutines at once, and conn remains the caller's. Its error is one line, and
// where the call itself failed it keeps the status: [errors.As] and the function
// FromError of package status find it.
func Probe(conn grpc.ClientConnInterface, options Options) health.Probe {
	return func(ctx context.Context) error {
		if conn == nil {
			return options.failure(errNoConnection)
		}
		answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: options.Service})
		if err == nil {
			return options.failure(judge(answer.GetStatus()))
		}
		return options.failure(err)
	}
}

const (
	firstPause   = time.Second
	longestPause = time.Minute
)

// Watch calls changed with what the server on the other side of conn says of the service, at once and at each change, until
// ctx ends: nil while it is SERVING, else an error as that of [Probe]. A watch that ends is begun again after a pause, from
// 1 s growing to 1 min, each within ±20 %; it counts as a failure if it does not begin again. It calls changed in the caller's goroutine and never twice in a row with
// an error of the same text. With MarkUnhealthy and MarkHealthy of a registration, or with its
// CheckHealth, changed makes a provider follow its server without the delay of probes.
//
// Watch blocks and starts no goroutine. Its error is that of ctx; for a server without the method it is returned after
// changed was called with it, or with nil by [Options.AcceptUnimplemented], as there is nothing to watch.
func Watch(ctx context.Context, conn grpc.ClientConnInterface, options Options, changed func(err error)) error {
	if conn == nil {
		err := options.failure(errNoConnection)
		changed(err)
		return err
	}
	w := watch{options: options, changed: changed}
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		answered, err := w.follow(ctx, conn)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case status.Code(err) == codes.Unimplemented:
			w.tell(options.failure(err))
			return Options{Service: options.Service}.failure(err)
		}
		if answered { // connections end for good reasons, too
			pause = firstPause
		} else {
			w.tell(options.failure(err))
		}
		timer := time.NewTimer(time.Duration((0.8 + 0.4*rand.Float64()) * float64(pause))) //nolint:gosec // no secret
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// watch tells each change once.
type watch struct {
	options Options
	changed func(error)
	told    bool
	last    string
}

// follow is one watch. Its error is never nil.
func (w *watch) follow(ctx context.Context, conn grpc.ClientConnInterface) (answered bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: w.options.Service})
	for err == nil {
		var answer *grpc_health_v1.HealthCheckResponse
		if answer, err = stream.Recv(); err == nil {
			answered = true
			w.tell(w.options.failure(judge(answer.GetStatus())))
		}
	}
	return answered, err
}

func (w *watch) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if !w.told || text != w.last {
		w.told, w.last = true, text
		w.changed(err)
	}
}

var errNoConnection = errors.New("there is no connection")

// failure returns the error of a probe; nil where err says that the service is well.
func (o Options) failure(err error) error {
	if err == nil || o.AcceptUnimplemented && status.Code(err) == codes.Unimplemented {
		return nil
	}
	shown := "gRPC health of the server: "
	if o.Service != "" {
		shown = fmt.Sprintf("gRPC health of %q: ", o.Service)
	}
	return &failure{shown, err}
}

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
