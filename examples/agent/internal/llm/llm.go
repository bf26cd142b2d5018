// Package llm gives LLM clients one interface.
package llm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	openaioption "github.com/openai/openai-go/v3/option"
)

// Reply is an answer and the model that gave it.
type Reply struct {
	Text  string
	Model string
}

// Piece is a part of a streamed answer. The last one is marked: a stream that ends
// without it was cut, which the SDKs do not tell from a complete one.
type Piece struct {
	Text string
	Last bool
}

// ChatModel answers a prompt, at once or piece by piece. Implementations are safe
// for concurrent use.
type ChatModel interface {
	Chat(ctx context.Context, prompt string) (Reply, error)
	Stream(ctx context.Context, prompt string) (iter.Seq2[Piece, error], error)
}

// OpenAI is a ChatModel on the official OpenAI SDK. It also talks to every
// server that is compatible with it.
type OpenAI struct {
	client    openai.Client
	transport *http.Transport
	model     string
}

// NewOpenAI returns a client of the API at baseURL, which ends in "/v1/"; an
// empty one is OpenAI's own.
//
// The SDK's own retries are off: it would try a failing server three times,
// sleeping between, before another model is tried, and an answer that came after
// a 429 would hide the rate limit. The registry knows the next model to try.
func NewOpenAI(baseURL, apiKey, model string) *OpenAI {
	transport := newTransport()
	options := []openaioption.RequestOption{
		openaioption.WithAPIKey(apiKey), openaioption.WithMaxRetries(0),
		openaioption.WithHTTPClient(&http.Client{Transport: transport}),
	}
	if baseURL != "" { // an explicit option wins over OPENAI_BASE_URL
		options = append(options, openaioption.WithBaseURL(baseURL))
	}
	return &OpenAI{client: openai.NewClient(options...), transport: transport, model: model}
}

func (o *OpenAI) question(prompt string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{
		Model:    o.model,
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)},
	}
}

// Stream asks the model for its answer piece by piece.
func (o *OpenAI) Stream(ctx context.Context, prompt string) (iter.Seq2[Piece, error], error) {
	return pieces(o.client.Chat.Completions.NewStreaming(ctx, o.question(prompt)), func(chunk openai.ChatCompletionChunk) Piece {
		if len(chunk.Choices) == 0 {
			return Piece{}
		}
		return Piece{Text: chunk.Choices[0].Delta.Content, Last: chunk.Choices[0].FinishReason != ""}
	}), nil
}

// Chat asks the model.
func (o *OpenAI) Chat(ctx context.Context, prompt string) (Reply, error) {
	completion, err := o.client.Chat.Completions.New(ctx, o.question(prompt))
	if err != nil {
		return Reply{}, fromSDK(err)
	}
	if len(completion.Choices) == 0 {
		return Reply{}, errNoAnswer
	}
	return Reply{Text: completion.Choices[0].Message.Content, Model: completion.Model}, nil
}

// Close closes the idle connections.
func (o *OpenAI) Close() error {
	o.transport.CloseIdleConnections()
	return nil
}

// Anthropic is a ChatModel on the official Anthropic SDK.
type Anthropic struct {
	client    anthropic.Client
	transport *http.Transport
	model     string
}

// NewAnthropic returns a client of the API at baseURL, without "/v1"; an empty
// one is Anthropic's own. The SDK's own retries are off, as for [NewOpenAI].
func NewAnthropic(baseURL, apiKey, model string) *Anthropic {
	transport := newTransport()
	options := []anthropicoption.RequestOption{
		anthropicoption.WithoutEnvironmentDefaults(),
		anthropicoption.WithAPIKey(apiKey), anthropicoption.WithMaxRetries(0),
		anthropicoption.WithHTTPClient(&http.Client{Transport: transport}),
	}
	if baseURL != "" {
		options = append(options, anthropicoption.WithBaseURL(baseURL))
	}
	return &Anthropic{client: anthropic.NewClient(options...), transport: transport, model: model}
}

func (a *Anthropic) question(prompt string) anthropic.MessageNewParams {
	const longestAnswer = 512
	return anthropic.MessageNewParams{
		Model: a.model, MaxTokens: longestAnswer,
		Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(prompt))},
	}
}

// Stream asks the model for its answer piece by piece.
func (a *Anthropic) Stream(ctx context.Context, prompt string) (iter.Seq2[Piece, error], error) {
	return pieces(a.client.Messages.NewStreaming(ctx, a.question(prompt)), func(event anthropic.MessageStreamEventUnion) Piece {
		switch event.Type {
		case "content_block_delta":
			return Piece{Text: event.Delta.Text}
		case "message_stop":
			return Piece{Last: true}
		}
		return Piece{}
	}), nil
}

// Chat asks the model.
func (a *Anthropic) Chat(ctx context.Context, prompt string) (Reply, error) {
	message, err := a.client.Messages.New(ctx, a.question(prompt))
	if err != nil {
		return Reply{}, fromSDK(err)
	}
	for _, block := range message.Content {
		if block.Text != "" {
			return Reply{Text: block.Text, Model: message.Model}, nil
		}
	}
	return Reply{}, errNoAnswer
}

// Close closes the idle connections.
func (a *Anthropic) Close() error {
	a.transport.CloseIdleConnections()
	return nil
}

// events is the common interface of the streams of both SDKs.
type events[E any] interface {
	Next() bool
	Current() E
	Err() error
	Close() error
}

// pieces turns the events of an SDK into pieces.
func pieces[E any](stream events[E], piece func(E) Piece) iter.Seq2[Piece, error] {
	return func(yield func(Piece, error) bool) {
		defer func() { _ = stream.Close() }()
		for stream.Next() {
			if !yield(piece(stream.Current()), nil) {
				return
			}
		}
		if err := stream.Err(); err != nil {
			yield(Piece{}, fromSDK(err))
		}
	}
}

var errNoAnswer = errors.New("llm: the answer holds no text")

// newTransport gives each provider connections of its own, so that one that
// hangs does not delay others.
func newTransport() *http.Transport {
	return &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second}
}

// Error is an SDK's error without its body and URL, which may echo a key. The registry reads the SDK's error, to which it
// unwraps.
type Error struct {
	text  string
	cause error
}

// Error returns the status and the vendor's code.
func (e *Error) Error() string { return e.text }

// Unwrap returns the SDK's error.
func (e *Error) Unwrap() error { return e.cause }

// fromSDK shortens the text of an SDK's error; others stay as they are.
func fromSDK(err error) error {
	if openaiError, ok := errors.AsType[*openai.Error](err); ok {
		return shortened(err, openaiError.StatusCode, openaiError.Code)
	}
	if anthropicError, ok := errors.AsType[*anthropic.Error](err); ok {
		return shortened(err, anthropicError.StatusCode, string(anthropicError.Type()))
	}
	return err
}

func shortened(err error, status int, code string) error {
	text := fmt.Sprintf("llm: HTTP %d %s", status, http.StatusText(status))
	if code != "" {
		text += " (" + code + ")"
	}
	return &Error{text: text, cause: err}
}
