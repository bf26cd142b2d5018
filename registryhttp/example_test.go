package registryhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registryhttp"
)

// llm is the service of the examples: its providers are base URLs.
var llm = registry.NewService[*registryhttp.Upstream]("llm")

// startServers returns the URLs of a server that fails and of one that answers with the key it was asked with.
func startServers() (cloud, local string, stop func()) {
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
	}))
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		question, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s with %s: %s", r.Method, r.URL.Path, r.Header.Get("Authorization"), question)
	}))
	return bad.URL, good.URL, func() { bad.Close(); good.Close() }
}

// The client is that of an SDK, which knows one server and one key; the transport knows the others.
func ExampleTransport() {
	cloudURL, localURL, stop := startServers()
	defer stop()
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	for name, base := range map[string]string{"cloud": cloudURL + "/v1", "local": localURL + "/api"} {
		upstream, err := registryhttp.NewUpstream(base, registryhttp.UpstreamOptions{
			Header: http.Header{"Authorization": {"Bearer " + name + "-key"}},
		})
		if err != nil {
			panic(err)
		}
		group := 0
		if name == "local" {
			group = 1
		}
		if _, err = llm.Register(ctx, reg, registry.Provider[*registryhttp.Upstream]{Name: name, Group: group, Instance: upstream}); err != nil {
			panic(err)
		}
	}
	transport, err := registryhttp.NewTransport(llm.Bind(reg, registry.Query{}), registryhttp.Options{
		Base:       "/v1",                                    // of the SDK's own server
		Repeatable: func(*http.Request) bool { return true }, // a question changes nothing
	})
	if err != nil {
		panic(err)
	}
	defer transport.CloseIdleConnections()

	client := &http.Client{Transport: transport}
	response, err := client.Post("https://api.example.com/v1/chat", "text/plain", strings.NewReader("hello?")) //nolint:noctx // an example
	if err != nil {
		panic(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	fmt.Println(string(answer), err)
	// Output:
	// POST /api/chat with Bearer local-key: hello? <nil>
}

func ExampleNewUpstream() {
	upstream, err := registryhttp.NewUpstream("https://user:secret@host.example/v1?api-version=1", registryhttp.UpstreamOptions{})
	fmt.Println(upstream, err)
	_, err = registryhttp.NewUpstream("/v1", registryhttp.UpstreamOptions{})
	fmt.Println(err)
	// Output:
	// https://host.example/v1 <nil>
	// registry: invalid input: base is "/v1": want an absolute URL with http or https, a host and no fragment
}

// A handler returns the error of a call, and the client gets a problem that says when to come back.
func ExampleHandler() {
	handler := registryhttp.Handler(func(http.ResponseWriter, *http.Request) error {
		return &registry.UnavailableError{Service: "llm", RetryIn: 2500 * time.Millisecond}
	})
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil))
	fmt.Println(recorder.Code, "Retry-After:", recorder.Header().Get("Retry-After"))
	fmt.Print(recorder.Body)
	// Output:
	// 503 Retry-After: 3
	// {"type":"about:blank","title":"Service Unavailable","status":503,"detail":"no provider is available","service":"llm"}
}

func ExampleProblemOf() {
	p := registryhttp.ProblemOf(context.DeadlineExceeded)
	fmt.Println(p.Status, p.Detail)
	p = registryhttp.ProblemOf(errors.New("text that is nothing for clients"))
	fmt.Println(p.Status, p.Detail)
	// Output:
	// 504 the time for the request is over
	// 500 the request could not be processed
}

// What comes in with a request goes out with those that it leads to.
func ExampleMiddleware() {
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		deadline, ok := r.Context().Deadline()
		m := registryhttp.MetadataOf(r.Context())
		fmt.Println(m.Correlation, m.Caller, ok && time.Until(deadline) <= 500*time.Millisecond)
	})
	server := registryhttp.Middleware(registryhttp.MiddlewareOptions{
		Caller:     func(r *http.Request) string { return r.RemoteAddr },
		MaxTimeout: time.Minute,
	})(handler)
	request := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil)
	request.RemoteAddr = "client"
	request.Header.Set(registryhttp.HeaderCorrelation, "request-1")
	request.Header.Set(registryhttp.HeaderTimeout, "500")
	server.ServeHTTP(httptest.NewRecorder(), request)
	// Output:
	// request-1 client true
}

func ExampleWithMetadata() {
	ctx := registryhttp.WithMetadata(context.Background(), registryhttp.Metadata{Correlation: "request-1", TraceParent: "malformed"})
	fmt.Printf("%+v\n", registryhttp.MetadataOf(ctx))
	// Output:
	// {Correlation:request-1 TraceParent: TraceState: Caller:}
}
