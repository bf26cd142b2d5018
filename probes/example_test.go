package probes_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/probes"
)

// The probe goes into the policy of a provider, which says how often it runs.
func ExampleHTTP() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/health+json")
		_, _ = io.WriteString(w, `{"status": "warn", "usage": {"gpu memory": 0.93}}`)
	}))
	defer server.Close()

	probe, err := probes.HTTP(server.URL+"/healthz?key=secret", probes.HTTPOptions{})
	if err != nil {
		panic(err)
	}
	policy := health.Policy{Probe: probe, Interval: 10 * time.Second}

	ctx := health.WithUse(context.Background(), func(resource string, share float64) {
		fmt.Printf("%s: %.0f %%\n", resource, 100*share)
	})
	err = policy.Probe(ctx)
	fmt.Println(strings.ReplaceAll(err.Error(), server.URL, "http://server"))
	fmt.Println("limps:", health.IsLimp(err))
	// Output:
	// gpu memory: 93 %
	// GET http://server/healthz: 200 OK, but its status is "warn": {"status": "warn", "usage": {"gpu memory": 0.93}}
	// limps: true
}

// Whatever does not fit is refused when the probe is made.
func ExampleHTTP_invalid() {
	_, err := probes.HTTP("localhost:8080", probes.HTTPOptions{})
	fmt.Println(err)
	fmt.Println(errors.Is(err, probes.ErrInvalid))
	// Output:
	// probes: invalid input: url is "localhost:8080": want an absolute URL of http or https
	// true
}

func ExampleTCP() {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends with the example
	if err != nil {
		panic(err)
	}
	defer func() { _ = listener.Close() }()
	go func() {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		_, _ = io.ReadFull(connection, make([]byte, len("PING\r\n")))
		_, _ = io.WriteString(connection, "+PONG\r\n")
		_ = connection.Close()
	}()

	probe, err := probes.TCP(listener.Addr().String(), probes.TCPOptions{Send: []byte("PING\r\n"), Expect: []byte("+PONG")})
	if err != nil {
		panic(err)
	}
	fmt.Println(probe(context.Background()))
	// Output:
	// <nil>
}

// A probe is a function, so what has a Ping needs no more than that.
func ExampleAll() {
	ping := func(context.Context) error { return nil }
	probe := probes.All(map[string]health.Probe{
		"database": ping,
		"index":    func(context.Context) error { return errors.New("not loaded") },
		"cache":    func(context.Context) error { return health.Limp(errors.New("cold")) },
	})
	fmt.Println(probe(context.Background()))
	// Output:
	// index: not loaded
}

func ExampleAny() {
	probe := probes.Any(map[string]health.Probe{
		"primary": func(context.Context) error { return errors.New("connection refused") },
		"standby": func(context.Context) error { return health.Limp(errors.New("read-only")) },
	})
	err := probe(context.Background())
	fmt.Println(err)
	fmt.Println("limps:", health.IsLimp(err))
	// Output:
	// primary: connection refused; standby: read-only
	// limps: true
}

func ExampleWithTimeout() {
	hangs := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	probe := probes.WithTimeout(hangs, 10*time.Millisecond)
	fmt.Println(probe(context.Background()))
	// Output:
	// no answer within 10ms: context deadline exceeded
}
