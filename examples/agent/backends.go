// This file shows where providers come from: real services when there are keys, or
// servers of our own, and a folder.

package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/examples/agent/internal/llm"
	"github.com/capreg/registry/examples/internal/loopback"
	"github.com/capreg/registry/selection"
)

// backend is a model that can be wired.
type backend struct {
	name     string
	model    string
	priority registry.Priority
	group    int
	strategy selection.Strategy
	client   func() llm.ChatModel
	server   *loopback.Server // nil for a real service
}

// backends holds the models of a session, which are the real services that there are keys
// for, or servers of our own on loopback, and its webhook, page and folder.
type backends struct {
	real   bool
	models []backend
	sink   *loopback.Sink // nil in tests
	hook   string         // the URL of the webhook
	page   string         // the URL of a page with figures; "" for none
	dir    string         // with the folder "journal" in it

	document  string        // the file with the providers; "": they are those of this program
	canary    time.Duration // the time for which a change of it is watched; zero: none
	state     string        // the file in which what was learnt outlives the program; "": none
	temporary bool          // dir is removed at the end
}

func newBackends(ctx context.Context, dir string) (_ *backends, err error) {
	b := &backends{dir: dir, temporary: dir == ""}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.temporary {
		if b.dir, err = os.MkdirTemp("", "agent"); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(b.journal(), 0o700); err != nil {
		return nil, err
	}
	openAIKey, anthropicKey := os.Getenv("OPENAI_API_KEY"), os.Getenv("ANTHROPIC_API_KEY")
	b.real = openAIKey != "" || anthropicKey != ""
	if b.sink, err = loopback.StartSink(ctx); err != nil {
		return nil, err
	}
	b.hook, b.page = b.sink.URL(), b.sink.Page()
	if b.real {
		b.addReal(openAIKey, anthropicKey)
		return b, nil
	}
	return b, b.addLoopback()
}

func (b *backends) journal() string { return filepath.Join(b.dir, "journal") }

// unmount takes the folder of the journal away, as a disk that fails does.
func (b *backends) unmount() error { return os.Rename(b.journal(), b.journal()+".away") }

// mount brings the folder back, with all that was in it.
func (b *backends) mount() error { return os.Rename(b.journal()+".away", b.journal()) }

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
	added.client = client
	b.models = append(b.models, added)
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

func (b *backends) close() error {
	for _, wired := range b.models {
		if wired.server != nil {
			wired.server.Close()
		}
	}
	if b.sink != nil {
		b.sink.Close()
	}
	if b.temporary && b.dir != "" {
		return os.RemoveAll(b.dir)
	}
	return nil
}
