package registryprom_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/capreg/registry"
	registryprom "github.com/capreg/registry/contrib/prometheus"
)

// A handler shows what the registry has measured so far.
func ExampleNew() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	llm := registry.NewService[string]("llm")
	if _, err := llm.Register(ctx, reg, registry.Provider[string]{Name: "openai", Instance: "hello"}); err != nil {
		panic(err)
	}

	http.Handle("GET /metrics", registryprom.New(reg, registryprom.Options{}).Handler(prometheus.DefaultGatherer))

	for range 3 {
		if err := llm.Bind(reg, registry.Query{}).Do(ctx, func(context.Context, string) error { return nil }); err != nil {
			panic(err)
		}
	}
	scraped := httptest.NewRecorder()
	http.DefaultServeMux.ServeHTTP(scraped, httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(scraped.Body.String()) {
		for _, shown := range []string{"registry_calls_total{error_type=\"\"", "registry_circuit_breaker_status", "registry_service_eligible_providers{"} {
			if strings.HasPrefix(line, shown) {
				fmt.Print(line)
			}
		}
	}
	// Output:
	// registry_calls_total{error_type="",service="llm"} 3
	// registry_circuit_breaker_status{provider="openai",service="llm",state="closed"} 1
	// registry_circuit_breaker_status{provider="openai",service="llm",state="half-open"} 0
	// registry_circuit_breaker_status{provider="openai",service="llm",state="open"} 0
	// registry_service_eligible_providers{service="llm"} 1
}
