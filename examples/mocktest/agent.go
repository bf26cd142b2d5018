// Package mocktest is a small agent as a program would have it. Its test shows how
// its real providers are swapped for fakes: read agent_test.go.
package mocktest

import (
	"cmp"
	"context"
	"errors"
	"net/http"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/capreg/registry"
)

// ChatModel answers a prompt.
type ChatModel interface {
	Chat(ctx context.Context, prompt string) (string, error)
}

// LLM is the service that the agent asks.
var LLM = registry.NewService[ChatModel]("llm")

// Config holds the addresses of the models.
type Config struct {
	CloudURL, LocalURL string // with "/v1/" at the end; empty: the usual ones
	Key                string
	Client             *http.Client // nil: the usual one
}

// Agent answers questions with whichever model is there.
type Agent struct{ models *registry.Resolver[ChatModel] }

// New registers the real models, the cloud before a local one, and returns an agent
// that calls them.
func New(ctx context.Context, reg *registry.Registry, config Config) (*Agent, error) {
	_, err1 := LLM.Register(ctx, reg, registry.Provider[ChatModel]{
		Name: "cloud", Instance: newModel(cmp.Or(config.CloudURL, "https://api.openai.com/v1/"), "gpt-4o-mini", config),
	})
	_, err2 := LLM.Register(ctx, reg, registry.Provider[ChatModel]{
		Name: "local", Group: 1, Instance: newModel(cmp.Or(config.LocalURL, "http://localhost:11434/v1/"), "llama3", config),
	})
	return &Agent{LLM.Bind(reg, registry.Query{})}, errors.Join(err1, err2)
}

// Answer calls the models, the next one when one fails.
func (a *Agent) Answer(ctx context.Context, question string) (string, error) {
	return registry.Call(ctx, a.models, func(ctx context.Context, m ChatModel) (string, error) {
		return m.Chat(ctx, "Answer in one sentence: "+question)
	})
}

// model is a ChatModel on the official SDK, whose own retries are off: the registry
// knows the next model to try.
type model struct {
	client openai.Client
	name   string
}

func newModel(url, name string, config Config) *model {
	return &model{openai.NewClient(
		option.WithBaseURL(url), option.WithAPIKey(config.Key), option.WithMaxRetries(0),
		option.WithHTTPClient(cmp.Or(config.Client, http.DefaultClient)),
	), name}
}

// Chat asks the model.
func (m *model) Chat(ctx context.Context, prompt string) (string, error) {
	completion, err := m.client.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{
		Model: m.name, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)},
	})
	if err != nil {
		return "", err
	}
	if len(completion.Choices) == 0 {
		return "", errors.New("an answer without an answer")
	}
	return completion.Choices[0].Message.Content, nil
}
