package main

import (
	"cmp"
	"context"
	"os"
	"sync"

	"github.com/capreg/registry"
	"github.com/capreg/registry/examples/agent/internal/llm"
	"github.com/capreg/registry/examples/internal/loopback"
)

// backend is a model that can be wired.
type backend struct {
	name     string
	model    string
	priority registry.Priority
	group    int
	strategy registry.Strategy
	client   func() llm.ChatModel
	server   *loopback.Server // nil for a real service
}

// backends are the models and the webhook of a session: the real services that
// there are keys for, or servers of our own on loopback.
type backends struct {
	real   bool
	models []backend
	sink   *loopback.Sink

	names sync.Map // the client made → the name of its backend
}

func newBackends(ctx context.Context) (*backends, error) {
	b := &backends{}
	openAIKey, anthropicKey := os.Getenv("OPENAI_API_KEY"), os.Getenv("ANTHROPIC_API_KEY")
	b.real = openAIKey != "" || anthropicKey != ""
	var err error
	if b.sink, err = loopback.StartSink(ctx); err != nil {
		return nil, err
	}
	if b.real {
		b.addReal(openAIKey, anthropicKey)
		return b, nil
	}
	if err := b.addLoopback(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *backends) addReal(openAIKey, anthropicKey string) {
	if openAIKey != "" {
		model := cmp.Or(os.Getenv("OPENAI_MODEL"), "gpt-4o-mini")
		b.add(backend{name: "openai", model: model, priority: registry.PriorityCritical},
			func() llm.ChatModel { return llm.NewOpenAI(os.Getenv("OPENAI_BASE_URL"), openAIKey, model) })
	}
	if anthropicKey != "" {
		model := cmp.Or(os.Getenv("ANTHROPIC_MODEL"), "claude-3-5-haiku-latest")
		b.add(backend{name: "anthropic", model: model, priority: registry.PriorityHigh},
			func() llm.ChatModel { return llm.NewAnthropic("", anthropicKey, model) })
	}
}

func (b *backends) addLoopback() error {
	for _, planned := range []struct {
		backend

		dialect loopback.Dialect
	}{
		{backend{name: "openai", model: "gpt-4o", priority: registry.PriorityCritical}, loopback.OpenAI},
		{backend{name: "anthropic", model: "claude-sonnet", priority: registry.PriorityHigh}, loopback.Anthropic},
		{backend{name: "local-a", model: "llama", group: 1, strategy: registry.StrategyRoundRobin}, loopback.OpenAI},
		{backend{name: "local-b", model: "llama", group: 1}, loopback.OpenAI}, // the group's strategy
	} {
		server, err := loopback.Start(planned.name, planned.dialect)
		if err != nil {
			return err
		}
		wired, url, model := planned.backend, server.URL(), planned.model
		wired.server = server
		b.add(wired, func() llm.ChatModel {
			if planned.dialect == loopback.Anthropic {
				return llm.NewAnthropic(url, "loopback", model)
			}
			return llm.NewOpenAI(url+"/v1/", "loopback", model)
		})
	}
	return nil
}

func (b *backends) add(added backend, client func() llm.ChatModel) {
	added.client = func() llm.ChatModel {
		made := client()
		b.names.Store(made, added.name)
		return made
	}
	b.models = append(b.models, added)
}

// nameOf returns the name of a backend: a call's function sees only the instance.
func (b *backends) nameOf(m llm.ChatModel) string {
	if name, ok := b.names.Load(m); ok {
		return name.(string) //nolint:forcetypeassert // add stores nothing else
	}
	return "last-resort"
}

// tier names the group of a backend that answers: itself, or all that take
// turns with it.
func (b *backends) tier(name string) string {
	for _, wired := range b.models {
		if wired.name == name && wired.group == 1 {
			return "the local servers, in turn"
		}
	}
	return name
}

// server returns the loopback server of a model.
func (b *backends) server(name string) *loopback.Server {
	for _, wired := range b.models {
		if wired.name == name {
			return wired.server
		}
	}
	return nil
}

func (b *backends) close() {
	for _, wired := range b.models {
		if wired.server != nil {
			wired.server.Close()
		}
	}
	b.sink.Close()
}
