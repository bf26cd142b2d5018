package sdktest

import (
	"context"
	"net/http"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
)

func anthropicClients() []Client {
	return []Client{{
		Name: "anthropic-sdk-go", Module: "github.com/anthropics/anthropic-sdk-go", Retries: "`option.WithMaxRetries(0)`", LLM: true,
		try: web{
			says: anthropicSays, ask: askAnthropic, part: `{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"te`,
			streamKind: "text/event-stream",
			stream: "event: message_start\n" +
				`data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"model","content":[]}}` + "\n\n" +
				"event: error\n" + `data: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}` + "\n\n",
		}.try,
	}}
}

// anthropicSays is the shape of Anthropic's errors: each status has a type, and there are no other codes.
func anthropicSays(fault Fault) (status int, body any, ok bool) {
	kinds := map[int]string{
		http.StatusBadRequest: "invalid_request_error", http.StatusUnauthorized: "authentication_error",
		http.StatusPaymentRequired: "billing_error", http.StatusForbidden: "permission_error",
		http.StatusNotFound: "not_found_error", http.StatusRequestTimeout: "timeout_error",
		http.StatusConflict: "conflict_error", http.StatusRequestEntityTooLarge: "request_too_large",
		http.StatusUnprocessableEntity: "invalid_request_error", http.StatusTooManyRequests: "rate_limit_error",
		http.StatusGatewayTimeout: "timeout_error", overloaded: "overloaded_error",
	}
	switch fault.Problem {
	case Plain, TooLong, NoModel, Large, Limit, Spent, Busy:
	default:
		return 0, nil, false
	}
	kind, known := kinds[fault.Status]
	if !known {
		kind = "api_error"
	}
	return 0, object{"type": "error", "error": object{"type": kind, "message": "text of the server"}, "request_id": "req_1"}, true
}

func askAnthropic(ctx context.Context, p place, stream bool) error {
	client := anthropic.NewClient(
		option.WithoutEnvironmentDefaults(), option.WithBaseURL(p.url), option.WithAPIKey("key"), option.WithMaxRetries(0),
		option.WithHTTPClient(p.client),
	)
	question := anthropic.MessageNewParams{
		Model: "model", MaxTokens: 16, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("?"))},
	}
	if !stream {
		_, err := client.Messages.New(ctx, question)
		return err
	}
	pieces := client.Messages.NewStreaming(ctx, question)
	defer func() { _ = pieces.Close() }()
	for pieces.Next() {
		_ = pieces.Current()
	}
	return pieces.Err()
}
