package sdktest

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/azure"
	"github.com/openai/openai-go/v3/option"
	goopenai "github.com/sashabaranov/go-openai"
)

func openAIClients() []Client {
	const none = "`option.WithMaxRetries(0)`"
	plain := openAI(openAISays, askGoOpenAI)
	other := Client{Name: "go-openai", Module: "github.com/sashabaranov/go-openai", Retries: "it has none", LLM: true, try: plain.try}
	return []Client{
		{Name: "openai-go", Module: "github.com/openai/openai-go/v3", Retries: none, LLM: true, try: openAI(openAISays, askOpenAI).try},
		{Name: "openai-go, Azure", Module: "github.com/openai/openai-go/v3", Retries: none, LLM: true, try: openAI(azureSays, askAzure).try},
		other, through(other, plain),
	}
}

func openAI(says func(Fault) (int, any, bool), ask func(context.Context, place, bool) error) web {
	return web{
		says: says, ask: ask,
		part:       `{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assist`,
		streamKind: "text/event-stream",
		stream: `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Well"}}]}` + "\n\n" +
			`data: {"error":{"message":"busy","type":"engine_overloaded_error","param":null,"code":null}}` + "\n\n",
	}
}

// openAISays is the shape of OpenAI's errors.
func openAISays(fault Fault) (status int, body any, ok bool) {
	kind, code := "invalid_request_error", any(nil)
	switch fault.Problem {
	case TooLong:
		code = "context_length_exceeded"
	case Policy:
		code = "content_policy_violation"
	case DeadKey:
		code = "invalid_api_key"
	case NoModel:
		code = "model_not_found"
	case Limit:
		kind, code = "requests", "rate_limit_exceeded"
	case Spent:
		kind, code = "insufficient_quota", "insufficient_quota"
	case Busy:
		kind, code = "engine_overloaded_error", nil
	case Plain, Large:
		if fault.Status >= http.StatusInternalServerError {
			kind = "server_error"
		}
	default:
		return 0, nil, false
	}
	return 0, object{"error": object{"message": "text of the server", "type": kind, "param": nil, "code": code}}, true
}

// azureSays is the shape of Azure's errors: its gateway has numbers for codes.
func azureSays(fault Fault) (status int, body any, ok bool) {
	inner := object{"message": "text of the server", "type": nil, "param": nil}
	switch fault.Problem {
	case TooLong:
		inner["code"] = "context_length_exceeded"
	case Policy:
		inner["code"], inner["param"], inner["status"] = "content_filter", "prompt", http.StatusBadRequest
		inner["innererror"] = object{"code": "ResponsibleAIPolicyViolation", "content_filter_result": object{}}
	case NoModel:
		inner["code"] = "DeploymentNotFound"
	case Limit:
		inner["code"] = "429"
	case Spent:
		inner["code"] = "insufficient_quota"
	case Plain, Large:
		inner["code"] = http.StatusText(fault.Status)
	default:
		return 0, nil, false
	}
	return 0, object{"error": inner}, true
}

func askOpenAI(ctx context.Context, p place, stream bool) error {
	return chatOpenAI(ctx, stream, option.WithBaseURL(p.url+"/v1/"), option.WithAPIKey("key"), option.WithHTTPClient(p.client))
}

func askAzure(ctx context.Context, p place, stream bool) error {
	return chatOpenAI(ctx, stream, azure.WithEndpoint(p.url, "2024-10-21"), azure.WithAPIKey("key"), option.WithHTTPClient(p.client))
}

func chatOpenAI(ctx context.Context, stream bool, options ...option.RequestOption) error {
	client := openai.NewClient(append(options, option.WithMaxRetries(0))...)
	question := openai.ChatCompletionNewParams{
		Model: "model", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("?")},
	}
	if !stream {
		_, err := client.Chat.Completions.New(ctx, question)
		return err
	}
	pieces := client.Chat.Completions.NewStreaming(ctx, question)
	defer func() { _ = pieces.Close() }()
	for pieces.Next() {
		_ = pieces.Current()
	}
	return pieces.Err()
}

func askGoOpenAI(ctx context.Context, p place, stream bool) error {
	config := goopenai.DefaultConfig("key")
	config.BaseURL, config.HTTPClient = p.url+"/v1", p.client
	client := goopenai.NewClientWithConfig(config)
	question := goopenai.ChatCompletionRequest{
		Model: "model", Messages: []goopenai.ChatCompletionMessage{{Role: "user", Content: "?"}},
	}
	if !stream {
		_, err := client.CreateChatCompletion(ctx, question)
		return err
	}
	pieces, err := client.CreateChatCompletionStream(ctx, question)
	if err != nil {
		return err
	}
	defer func() { _ = pieces.Close() }()
	for err == nil {
		_, err = pieces.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
