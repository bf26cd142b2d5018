package stream_test

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/capreg/registry"
	"github.com/capreg/registry/stream"
)

func ExampleSSE() {
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(context.Background()) }()
	servers := registry.NewService[string]("servers")
	for _, says := range []string{ // the first one is cut before it has said anything
		"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n",
		"data: hello\r\n\r\n: a comment\n\ndata: world\n\ndata: [DONE]\n\n",
	} {
		if _, err := servers.Register(context.Background(), reg, registry.Provider[string]{Instance: says}); err != nil {
			panic(err)
		}
	}
	answer, err := stream.Open(context.Background(), servers.Bind(reg, registry.Query{}),
		func(_ context.Context, body string) (iter.Seq2[stream.Event, error], error) {
			return stream.SSE(strings.NewReader(body)), nil // in a program: the body of an http.Response
		}, stream.Options[stream.Event]{Last: func(e stream.Event) bool { return e.Is("[DONE]") }})
	if err != nil {
		panic(err)
	}
	for event, err := range answer.All() {
		fmt.Println(string(event.Data), err)
	}
	// Output:
	// hello <nil>
	// world <nil>
	// [DONE] <nil>
}
