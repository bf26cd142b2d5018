package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/nats"
	"github.com/capreg/registry/federation"
)

const (
	effects     = "EFFECTS" // the stream of what was done
	bornAt      = "born"    // metadata: when an agent was registered
	effectsOf   = "effects."
	agentLinger = 200 * time.Millisecond
)

// worker is the agent of this process.
type worker struct {
	name string
	js   jetstream.JetStream
}

// Do does a task: it leaves an effect. The task's identifier goes with it, so that a task that is done a second time, as the answer
// to the first was lost, has no second effect.
func (w *worker) Do(ctx context.Context, task Task) (Result, error) {
	result := Result{ID: task.ID, Agent: w.name}
	text, err := json.Marshal(result)
	if err != nil {
		return Result{}, err
	}
	_, err = w.js.Publish(ctx, effectsOf+task.ID, text, jetstream.WithMsgID(task.ID))
	return result, err
}

// runAgent is an agent until its standard input ends.
func runAgent(ctx context.Context, name, node, url string, stdin io.Reader) (err error) {
	nc, err := nats.Connect(url, registrynats.Options()...)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	reg, err := registry.New(registry.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close(context.WithoutCancel(ctx))) }()
	calls, err := registrynats.NewServer(nc, reg, registrynats.ServerOptions{Node: node})
	if err != nil {
		return err
	}
	err = registrynats.Serve(calls, Agents, "do", func(ctx context.Context, a Agent, task Task) (Result, error) { return a.Do(ctx, task) })
	if err != nil {
		return err
	}
	store, err := registrynats.NewStore(nc, registrynats.StoreOptions{})
	if err != nil {
		return err
	}
	announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{
		Store: store, Node: node, Offer: calls.Offer, TTL: leaseTTL, Linger: agentLinger,
	})
	if err != nil {
		return err
	}
	announcing, leave := context.WithCancel(ctx)
	defer leave()
	left := make(chan error, 1)
	go func() { left <- announcer.Run(announcing, reg) }()
	for announcer.Announcement().State != federation.AnnouncerServing { // so that what is measured is the time of one registration
		select {
		case err := <-left:
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
	_, err = Agents.Register(ctx, reg, registry.Provider[Agent]{
		Name: name, Instance: &worker{node, js}, Capabilities: skills[name], Strategy: registry.StrategyRoundRobin,
		Metadata: map[string]string{bornAt: strconv.FormatInt(time.Now().UnixNano(), 10)},
	})
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stdin)
	leave() // no new tasks
	if ended := <-left; !errors.Is(ended, context.Canceled) {
		err = errors.Join(err, fmt.Errorf("agent %s: %w", node, ended))
	}
	return errors.Join(err, calls.Drain(context.WithoutCancel(ctx))) // those in progress are done
}
