// This file shows the whole of the runtime: six services, three handlers, one registry.

package main

import (
	"context"
	"errors"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/examples/agent/internal/audit"
	"github.com/capreg/registry/examples/agent/internal/channel"
	"github.com/capreg/registry/examples/agent/internal/llm"
	"github.com/capreg/registry/examples/agent/internal/memory"
	"github.com/capreg/registry/examples/agent/internal/observer"
	"github.com/capreg/registry/examples/agent/internal/tool"
)

// The services of the agent: a name and a Go type each, declared once.
var (
	LLM           = registry.NewService[llm.ChatModel]("llm")
	Communication = registry.NewService[channel.Channel]("communication")
	Memory        = registry.NewService[memory.Memory]("memory")
	Audit         = registry.NewService[audit.Trail]("audit")
	Tool          = registry.NewService[tool.Tool]("tool")
	Observer      = registry.NewService[observer.Observer]("observer")
)

// The handlers: each sees the providers that are registered for it before the global
// ones, and none of those of the others.
const (
	speakHandler    = "SpeakHandler"
	memorizeHandler = "MemorizeHandler"
	observeHandler  = "ObserveHandler"
)

// options are those of the agent's registry.
func options() registry.Options {
	return registry.Options{
		Required: []string{
			LLM.Name(), Communication.Name(), Memory.Name(), Audit.Name(), Tool.Name(), Observer.Name(),
		},
	}
}

// agent is the runtime: what its handlers do is decided by whichever providers can.
type agent struct {
	registry *registry.Registry
	speak    *speaker
	memorize *memorizer
	observe  *watcher
	backends *backends
	inbox    *observer.Inbox
	ledger   *audit.Ledger
	screen   *screen

	unfollow func() error // ends the following of a document; nil: there is none
	events   *registry.Subscription
	watching chan struct{} // closed when watch has ended
}

// newAgent wires the agent into the registry, which it then owns.
func newAgent(ctx context.Context, reg *registry.Registry, b *backends, s *screen) (*agent, error) {
	a := &agent{
		registry: reg, backends: b, screen: s, watching: make(chan struct{}),
		inbox: observer.NewInbox(8), ledger: &audit.Ledger{}, events: reg.Subscribe(0),
	}
	a.speak = newSpeaker(reg, a.streaming)
	a.memorize = newMemorizer(reg)
	a.observe = newWatcher(reg)
	go a.watch() //nolint:gosec // it ends with the registry, after ctx, so that it shows the end too
	err := a.register(ctx)
	if err == nil {
		err = reg.WaitReady(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// turn is one round of the agent: it looks what there is, answers, and remembers the
// answer. The first error of it is the end of the turn.
func (a *agent) turn(ctx context.Context, how manner) (answered, error) {
	seen, err := a.observe.look(ctx)
	if err != nil || seen.by != inboxName {
		return answered{by: seen.by}, err
	}
	reply, err := a.speak.answer(ctx, seen.text, how)
	if err != nil {
		return answered{}, err
	}
	return reply, a.memorize.keep(ctx, seen.text, reply.text)
}

// watch prints the events of the registry.
func (a *agent) watch() {
	defer close(a.watching)
	for e := range a.events.All(context.Background()) {
		if line := describe(e); line != "" {
			a.screen.line(line)
		}
	}
}

// close ends the registry, which closes the clients its factories made.
func (a *agent) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var err error
	if a.unfollow != nil {
		err = a.unfollow()
	}
	err = errors.Join(err, a.registry.Close(ctx))
	<-a.watching
	return err
}
