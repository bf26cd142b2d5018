package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/registryhttp/llm"
	"github.com/capreg/registry/selectors"
	"github.com/capreg/registry/verdict"
)

// The names of the ways.
const (
	withLibrary    = "way by the library"
	withoutLibrary = "way without it"
)

// serveWay serves what examples/gateway does with a request between its configuration and its upstream: by the library, or
// with the transport of the upstream in its place. The difference is the library's own part.
func serveWay(ctx context.Context, listener net.Listener, target string, library bool) (err error) {
	debug.SetGCPercent(400) // with either, garbage is collected about as seldom as the floor of the gateway's heap has it
	to := &llm.Transport{
		Base:         &http.Transport{MaxIdleConnsPerHost: 256},
		FirstTimeout: 10 * time.Second, StallTimeout: 20 * time.Second, AnswerTimeout: 5 * time.Minute,
	}
	var way http.RoundTripper = &straight{&url.URL{Scheme: "http", Host: target}, to}
	if library {
		reg, err := registry.New(registry.Options{Strategies: selectors.All()})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, reg.Close(context.WithoutCancel(ctx))) }()
		if way, err = byLibrary(ctx, reg, target, to); err != nil {
			return err
		}
	}
	proxy := &llm.Proxy{Route: func(*http.Request, llm.Request) (llm.Way, error) { return llm.Way{Transport: way}, nil }}
	return unlessEnded(ctx, (&http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}).Serve(listener))
}

// byLibrary returns the way as the gateway has it: one upstream is a provider, with a breaker and retries.
func byLibrary(ctx context.Context, reg *registry.Registry, target string, to http.RoundTripper) (http.RoundTripper, error) {
	const total = 15 * time.Minute
	models := registry.NewService[*registryhttp.Upstream]("models")
	upstream, err := registryhttp.NewUpstream("http://"+target+"/v1", registryhttp.UpstreamOptions{Transport: to})
	if err != nil {
		return nil, err
	}
	if _, err := models.Register(ctx, reg, registry.Provider[*registryhttp.Upstream]{
		Name: "bench at u0", Instance: upstream, Handler: "model bench", Domain: "u0", Classify: verdict.LLM,
		Capabilities: []string{"upstream u0", "model bench"}, LastResort: true, Retry: registry.RetryPolicy{Retries: 1},
	}); err != nil {
		return nil, err
	}
	return registryhttp.NewTransport(models.Bind(reg, registry.Query{Handler: "model bench", OwnOnly: true}), registryhttp.Options{
		Base: "/v1", Repeatable: func(*http.Request) bool { return true },
		FirstTimeout: total, StallTimeout: total, Timeout: total,
	})
}

// straight sends each request to one server.
type straight struct {
	to   *url.URL
	next http.RoundTripper
}

// RoundTrip sends the request.
func (s *straight) RoundTrip(request *http.Request) (*http.Response, error) {
	out, to := *request, *request.URL
	to.Scheme, to.Host = s.to.Scheme, s.to.Host
	out.URL, out.Host = &to, ""
	return s.next.RoundTrip(&out)
}
