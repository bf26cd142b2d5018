// This file shows providers that are read from a document and follow its changes: models, the webhook and the
// memories. The example is agent.yaml.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/capreg/registry/config"
	"github.com/capreg/registry/examples/agent/internal/channel"
	"github.com/capreg/registry/examples/agent/internal/llm"
	"github.com/capreg/registry/examples/agent/internal/memory"
)

// cloud are the settings of a model behind an API.
type cloud struct {
	URL   string        `json:"url"`
	Key   config.Secret `json:"key" jsonschema:"required"`
	Model string        `json:"model" jsonschema:"required"`
}

// location are the settings of what has a URL or a path.
type location struct {
	At string `json:"at" jsonschema:"required"`
}

// kinds are those that a document of the agent can ask for.
func kinds() []config.Kind {
	return []config.Kind{
		config.Bind(LLM, "openai", func(_ context.Context, s cloud) (llm.ChatModel, error) {
			return llm.NewOpenAI(s.URL, s.Key.Reveal(), s.Model), nil
		}),
		config.Bind(LLM, "anthropic", func(_ context.Context, s cloud) (llm.ChatModel, error) {
			return llm.NewAnthropic(s.URL, s.Key.Reveal(), s.Model), nil
		}),
		config.Bind(LLM, "last-resort", func(context.Context, struct{}) (llm.ChatModel, error) { return llm.LastResort{}, nil }),
		config.Bind(LLM, "condenser", func(_ context.Context, s struct {
			Words int `json:"words"`
		},
		) (llm.ChatModel, error) {
			return llm.Condenser{Words: s.Words}, nil
		}),
		config.Bind(Communication, "webhook", func(_ context.Context, s location) (channel.Channel, error) {
			return channel.NewWebhook(s.At), nil
		}),
		config.Bind(Memory, "journal", func(_ context.Context, s location) (memory.Memory, error) {
			return memory.NewJournal(s.At), nil
		}),
		config.Bind(Memory, "scratch", func(context.Context, struct{}) (memory.Memory, error) { return &memory.Scratch{}, nil }),
	}
}

// configure applies the document of the file, and follows it until the agent is closed.
func (a *agent) configure(ctx context.Context, path string) error {
	err := a.backends.export()
	if err != nil {
		return err
	}
	manager, err := config.New(a.registry, config.Options{
		Kinds:  kinds(),
		Listen: func(e config.Event) { a.screen.line("config    " + strings.TrimPrefix(e.String(), "config: ")) },
	})
	if err != nil {
		return err
	}
	if err := a.remember(manager); err != nil {
		return err
	}
	source := config.File(path)
	document, err := source.Load(ctx)
	if err != nil {
		return err
	}
	if _, err := manager.Apply(ctx, document); err != nil {
		return err
	}
	var follow config.FollowOptions
	if a.backends.canary > 0 {
		follow.Canary = &config.Canary{For: a.backends.canary}
	}
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- manager.Follow(following, source, follow) }()
	a.unfollow = func() error {
		stop()
		err := <-ended
		if a.backends.state != "" {
			err = errors.Join(err, manager.Save(a.backends.state))
		}
		return err
	}
	return nil
}

// remember has the providers go on from what an earlier run has learnt: parked keys, open breakers, latencies.
func (a *agent) remember(manager *config.Manager) error {
	if a.backends.state == "" {
		return nil
	}
	before, err := manager.Restore(a.backends.state)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the first run
	}
	if err == nil {
		a.screen.line(fmt.Sprintf("config    restored the state of %d providers, %v old", before.Providers, before.Age.Round(time.Millisecond)))
	}
	return err
}

// export lets a document refer to the servers of this process.
func (b *backends) export() (err error) {
	set := func(name, value string) { err = errors.Join(err, os.Setenv(name, value)) }
	set("AGENT_WEBHOOK", b.hook)
	set("AGENT_JOURNAL", b.journal())
	for _, wired := range b.models {
		if wired.server != nil {
			set("AGENT_"+strings.ToUpper(strings.ReplaceAll(wired.name, "-", "_"))+"_URL", wired.server.URL())
		}
	}
	return err
}
