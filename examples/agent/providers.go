// This file shows what is registered: for one handler or for all, in which order, with
// which limits.

package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/examples/agent/internal/audit"
	"github.com/capreg/registry/examples/agent/internal/channel"
	"github.com/capreg/registry/examples/agent/internal/llm"
	"github.com/capreg/registry/examples/agent/internal/memory"
	"github.com/capreg/registry/examples/agent/internal/observer"
)

// inboxName is the observer whose texts are questions.
const inboxName = "inbox"

// attemptTimeout is short, and so are the times of impatient.
const attemptTimeout = 400 * time.Millisecond

// impatient is for a session of half a minute. The defaults suit production:
// 5 failures, 60 s of recovery, 3 successes, 30 s an attempt.
func impatient() registry.BreakerPolicy {
	return registry.BreakerPolicy{FailureThreshold: 3, RecoveryTimeout: 1500 * time.Millisecond, SuccessThreshold: 2}
}

// register registers every provider of the agent.
func (a *agent) register(ctx context.Context) error {
	var changing error
	if path := a.backends.document; path != "" {
		changing = a.configure(ctx, path)
	} else {
		changing = errors.Join(a.registerModels(ctx), a.registerWebhook(ctx), a.registerMemories(ctx))
	}
	return errors.Join(
		changing, a.registerTerminal(ctx),
		a.registerTrails(ctx), a.registerTools(ctx), a.registerObservers(ctx),
	)
}

// registerModels registers the models. The clouds are tried first, in order of
// priority; the local servers share the load that is left; the built-in answer
// comes last. Factories, so that the registry owns the clients and closes them.
func (a *agent) registerModels(ctx context.Context) error {
	breaker, timeout := impatient(), attemptTimeout
	if a.backends.real {
		breaker, timeout = registry.BreakerPolicy{}, 0 // the defaults
	}
	var failures []error
	add := func(p registry.Provider[llm.ChatModel]) {
		p.Capabilities = append(p.Capabilities, "chat")
		p.Breaker, p.AttemptTimeout = breaker, timeout
		_, err := LLM.Register(ctx, a.registry, p)
		failures = append(failures, err)
	}
	for _, backend := range a.backends.models {
		add(registry.Provider[llm.ChatModel]{
			Name: backend.name, Priority: backend.priority, Group: backend.group, Strategy: backend.strategy,
			Factory:  func(context.Context) (llm.ChatModel, error) { return backend.client(), nil },
			Limits:   registry.LimitPolicy{MaxConcurrent: 8}, // more at once would make each of them slower
			Metadata: map[string]string{"model": backend.model},
		})
	}
	add(registry.Provider[llm.ChatModel]{
		Name: "last-resort", Instance: llm.LastResort{}, Group: 2, Priority: registry.PriorityFallback,
	})
	add(registry.Provider[llm.ChatModel]{ // what is remembered takes nothing from those that answer
		Name: "condenser", Handler: memorizeHandler, Instance: llm.Condenser{Words: 12},
	})
	return errors.Join(failures...)
}

// registerTerminal registers the way out that people look at.
func (a *agent) registerTerminal(ctx context.Context) error {
	_, err := Communication.Register(ctx, a.registry, registry.Provider[channel.Channel]{
		Name: "terminal", Capabilities: []string{"show"}, Instance: channel.NewTerminal(a.screen),
	})
	return err
}

// registerWebhook registers the way out that programs listen to, and only the SpeakHandler may post to.
func (a *agent) registerWebhook(ctx context.Context) error {
	_, err := Communication.Register(ctx, a.registry, registry.Provider[channel.Channel]{
		Name: "webhook", Handler: speakHandler, Capabilities: []string{"notify"}, AttemptTimeout: attemptTimeout,
		Factory: func(context.Context) (channel.Channel, error) {
			return channel.NewWebhook(a.backends.hook), nil
		},
	})
	return err
}

// registerMemories registers a journal for what is to last, and a memory for any handler,
// which takes over while the disk is away.
func (a *agent) registerMemories(ctx context.Context) error {
	_, journal := Memory.Register(ctx, a.registry, registry.Provider[memory.Memory]{
		Name: "journal", Handler: memorizeHandler, Breaker: impatient(),
		Instance: memory.NewJournal(filepath.Join(a.backends.dir, "journal", "memory.jsonl")),
	})
	_, scratch := Memory.Register(ctx, a.registry, registry.Provider[memory.Memory]{Name: "scratch", Instance: &memory.Scratch{}})
	return errors.Join(journal, scratch)
}

// registerTrails registers the audit: both trails get every record.
func (a *agent) registerTrails(ctx context.Context) error {
	_, ledger := Audit.Register(ctx, a.registry, registry.Provider[audit.Trail]{
		Name: "ledger", Priority: registry.PriorityCritical, Instance: a.ledger,
	})
	_, file := Audit.Register(ctx, a.registry, registry.Provider[audit.Trail]{
		Name: "audit-file", Breaker: impatient(),
		Instance: audit.NewFile(filepath.Join(a.backends.dir, "audit.jsonl")),
	})
	return errors.Join(ledger, file)
}

// registerObservers registers the messages, which are the ObserveHandler's alone, and the
// state of the runtime for any handler.
func (a *agent) registerObservers(ctx context.Context) error {
	_, inbox := Observer.Register(ctx, a.registry, registry.Provider[observer.Observer]{
		Name: inboxName, Handler: observeHandler, Instance: a.inbox,
	})
	_, vitals := Observer.Register(ctx, a.registry, registry.Provider[observer.Observer]{
		Name: "vitals", Instance: observer.Vitals(a.registry.Health),
	})
	return errors.Join(inbox, vitals)
}
