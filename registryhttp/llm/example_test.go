package llm_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/registryhttp/llm"
)

// A stream that ends before its first token is none: the next server answers, although the first one has said 200.
func Example() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	models := registry.NewService[*registryhttp.Upstream]("models")
	for name, text := range map[string]string{"a": "data: [DONE]\n\n", "b": token + finishing + marked} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, text)
		}))
		defer server.Close()
		upstream, err := registryhttp.NewUpstream(server.URL+"/v1", registryhttp.UpstreamOptions{
			Transport: &llm.Transport{FirstTimeout: 10 * time.Second, StallTimeout: 20 * time.Second},
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		if _, err := models.Register(ctx, reg, registry.Provider[*registryhttp.Upstream]{Name: name, Instance: upstream}); err != nil {
			fmt.Println(err)
			return
		}
	}
	transport, err := registryhttp.NewTransport(models.Bind(reg, registry.Query{}), registryhttp.Options{
		Base: "/v1", Repeatable: func(*http.Request) bool { return true },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	client := &http.Client{Transport: transport}                                                                    // for an SDK
	response, err := client.Post("http://any/v1/chat/completions", "application/json", strings.NewReader(streamed)) //nolint:noctx // an example
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := io.ReadAll(response.Body)
	fmt.Println(strings.Count(string(text), "\n\n"), "events", err, response.Body.Close())
	http.DefaultClient.CloseIdleConnections()
	fmt.Println(reg.Close(ctx))
	// Output:
	// 3 events <nil> <nil>
	// <nil>
}

// A proxy in front of the models: one address for clients, with an error in OpenAI's form where there is no model.
func ExampleProxy() {
	proxy := &llm.Proxy{Route: func(_ *http.Request, asked llm.Request) (llm.Way, error) {
		return llm.Way{}, llm.NoModel(asked.Model)
	}}
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/v1/chat/completions", strings.NewReader(`{"model":"gpt-9"}`))
	proxy.ServeHTTP(w, r)
	fmt.Print(w.Code, " ", w.Body)
	// Output: 404 {"error":{"message":"there is no model \"gpt-9\" for this key","type":"invalid_request_error","param":null,"code":"model_not_found"}}
}
