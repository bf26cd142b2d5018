package sdktest

import (
	"context"
	"net/url"

	cohere "github.com/cohere-ai/cohere-go/v2"
	cohereclient "github.com/cohere-ai/cohere-go/v2/client"
	"github.com/cohere-ai/cohere-go/v2/option"
	"github.com/ollama/ollama/api"
)

// through returns the client once more, with refusals as errors of its transport.
func through(c Client, w web) Client {
	w.asErrors = true
	c.Name += " +"
	c.try = w.try
	return c
}

func otherModels() []Client {
	ollama := web{
		says: ollamaSays, ask: askOllama, part: `{"model":"model","message":{"role":"assist`, streamKind: "application/x-ndjson",
		stream: `{"model":"model","message":{"role":"assistant","content":"Well"},"done":false}` + "\n" + `{"error":"text of the server"}` + "\n",
	}
	coherely := web{
		says: cohereSays, ask: askCohere, part: `{"id":"1","message":{"role":"assist`, streamKind: "text/event-stream",
	}
	first := Client{Name: "ollama", Module: "github.com/ollama/ollama", Retries: "it has none", LLM: true, try: ollama.try}
	second := Client{Name: "cohere", Module: "github.com/cohere-ai/cohere-go/v2", Retries: "`option.WithMaxAttempts(1)`", LLM: true, try: coherely.try}
	return []Client{first, through(first, ollama), second, through(second, coherely)}
}

// plainly tells whether a fault is one for which an API without codes has no more than the status.
func plainly(fault Fault) bool {
	switch fault.Problem {
	case Plain, TooLong, NoModel, Large, Limit:
		return true
	case Busy:
		return fault.Trouble == InStream
	default:
		return false
	}
}

// ollamaSays is the shape of Ollama's errors: a text.
func ollamaSays(fault Fault) (status int, body any, ok bool) {
	return 0, object{"error": "text of the server"}, plainly(fault)
}

// cohereSays is the shape of Cohere's errors: a text.
func cohereSays(fault Fault) (status int, body any, ok bool) {
	return 0, object{"id": "1", "message": "text of the server"}, plainly(fault)
}

func askOllama(ctx context.Context, p place, stream bool) error {
	base, err := url.Parse(p.url)
	if err != nil {
		return err
	}
	question := &api.ChatRequest{Model: "model", Messages: []api.Message{{Role: "user", Content: "?"}}, Stream: &stream}
	return api.NewClient(base, p.client).Chat(ctx, question, func(api.ChatResponse) error { return nil })
}

func askCohere(ctx context.Context, p place, _ bool) error {
	client := cohereclient.NewClient(
		option.WithBaseURL(p.url), option.WithToken("key"), option.WithMaxAttempts(1), option.WithHTTPClient(p.client),
	)
	_, err := client.V2.Chat(ctx, &cohere.V2ChatRequest{Model: "model", Messages: cohere.ChatMessages{{
		Role: "user", User: &cohere.UserMessageV2{Content: &cohere.UserMessageV2Content{String: "?"}},
	}}})
	return err
}
