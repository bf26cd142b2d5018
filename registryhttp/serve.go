package registryhttp

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

const (
	defaultDrain = 30 * time.Second
	lastMoment   = 2 * time.Second
)

// Serve serves until ctx ends, then takes no new requests and waits for those in progress, for the time of drain; zero is
// 30 s. The contexts of those that are left end then, so that they can answer with an error, for which they have 2 s; what is
// left after that is cut. The server's BaseContext is replaced: the contexts of requests have the values of ctx. Serve blocks;
// the error is nil after an end that was asked for, also where requests were cut.
func Serve(ctx context.Context, server *http.Server, listener net.Listener, drain time.Duration) error {
	requests, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	server.BaseContext = func(net.Listener) context.Context { return requests }
	var failure error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		failure = server.Serve(listener)
	}()
	select {
	case <-ended:
		return failure
	case <-ctx.Done():
	}
	for _, patience := range []time.Duration{cmp.Or(drain, defaultDrain), lastMoment} {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		err := server.Shutdown(ending)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			<-ended
			return err
		}
		end()
	}
	err := server.Close()
	<-ended
	return err
}
