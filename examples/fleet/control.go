package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/nats"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/registryhttp"
)

const (
	queue      = "TASKS" // the stream of what is to be done
	queueOf    = "tasks."
	dispatched = 32 // tasks under way at a time
)

// remote is an agent in another process.
type remote func(ctx context.Context, task Task) (Result, error)

// Do calls the agent.
func (r remote) Do(ctx context.Context, task Task) (Result, error) { return r(ctx, task) }

// control is the control plane.
type control struct {
	out    io.Writer
	server *server.Server
	dir    string
	nc     *nats.Conn
	js     jetstream.JetStream
	reg    *registry.Registry
	source *federation.Source
	agents map[string]*process

	mu        sync.Mutex // guards what follows
	done      map[string]int
	latencies []time.Duration
	found     []time.Duration
	progress  chan struct{}
}

// run runs the fleet.
func run(ctx context.Context, executable string, tasks int, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	c := &control{out: out, agents: map[string]*process{}, done: map[string]int{}, progress: make(chan struct{}, 1)}
	if c.dir, err = os.MkdirTemp("", "fleet"); err != nil {
		return err
	}
	defer os.RemoveAll(c.dir) //nolint:errcheck // it is temporary
	if c.server, err = startServer(c.dir, -1); err != nil {
		return err
	}
	defer func() { c.stopServer() }()
	if c.nc, err = nats.Connect(c.server.ClientURL(), registrynats.Options()...); err != nil {
		return err
	}
	defer c.nc.Close()
	if err := c.openStreams(ctx); err != nil {
		return err
	}
	if c.reg, err = registry.New(registry.Options{Required: []string{Agents.Name()}}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.reg.Close(context.WithoutCancel(ctx))) }()
	following, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop() // before the wait
	if err := c.follow(following, &all); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stopAgents()) }()
	for name := range skills {
		if err := c.start(ctx, executable, name, name+"-1"); err != nil {
			return err
		}
	}
	if err := c.work(ctx, executable, tasks); err != nil {
		return err
	}
	return c.report(ctx, tasks)
}

func (c *control) stopServer() {
	c.server.Shutdown()
	c.server.WaitForShutdown()
}

// openStreams creates the work queue, and the stream of effects.
func (c *control) openStreams(ctx context.Context) (err error) {
	if c.js, err = jetstream.New(c.nc); err != nil {
		return err
	}
	_, err = c.js.CreateStream(ctx, jetstream.StreamConfig{Name: queue, Subjects: []string{queueOf + ">"}, Retention: jetstream.WorkQueuePolicy})
	if err != nil {
		return err
	}
	_, err = c.js.CreateStream(ctx, jetstream.StreamConfig{Name: effects, Subjects: []string{effectsOf + ">"}, Duplicates: time.Hour})
	return err
}

// follow brings the agents of other processes in, and measures how soon they are seen.
func (c *control) follow(ctx context.Context, all *sync.WaitGroup) error {
	store, err := registrynats.NewStore(c.nc, registrynats.StoreOptions{})
	if err != nil {
		return err
	}
	dial := federation.Dial(Agents, registrynats.Kind, func(_ context.Context, e federation.Entry) (Agent, error) {
		return remote(registrynats.NewStub[Task, Result](c.nc, e, "do")), nil
	}).Configure(func(_ federation.Entry, p *registry.Provider[any]) { p.AttemptTimeout = time.Second })
	if c.source, err = federation.NewSource(federation.SourceOptions{Store: store, Bindings: []federation.Binding{dial}}); err != nil {
		return err
	}
	seen := c.reg.Subscribe(0, event.Filter{Kinds: []event.Kind{event.Registered}})
	all.Go(func() {
		defer seen.Close()
		for e := range seen.All(ctx) {
			c.note(e)
		}
	})
	all.Go(func() { _ = c.source.Run(ctx, c.reg) }) // it ends with ctx
	return nil
}

// note measures how long after its registration an agent is seen here. Both processes have the same clock.
func (c *control) note(e event.Event) {
	registration, there := c.reg.Provider(e.Service, e.Provider)
	if !there {
		return
	}
	if born, err := strconv.ParseInt(registration.Info().Metadata[bornAt], 10, 64); err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.found = append(c.found, e.Time.Sub(time.Unix(0, born)))
	}
}

func (c *control) start(ctx context.Context, executable, name, node string) error {
	p, err := startAgent(ctx, executable, name, node, c.server.ClientURL())
	if err != nil {
		return err
	}
	c.agents[name] = p
	return nil
}

func (c *control) stopAgents() (err error) {
	for _, p := range c.agents {
		err = errors.Join(err, p.stop())
	}
	return err
}

// work has the tasks done, while an agent is killed and replaced, and the server restarted.
func (c *control) work(ctx context.Context, executable string, tasks int) error {
	if err := c.reg.WaitReady(ctx); err != nil {
		return err
	}
	kinds := []string{"build", "test", "deploy"}
	for i := range tasks {
		task := Task{ID: fmt.Sprintf("task-%05d", i), Capability: kinds[i%len(kinds)]}
		text, err := json.Marshal(task)
		if err != nil {
			return err
		}
		if _, err := c.js.PublishAsync(queueOf+task.Capability, text); err != nil {
			return err
		}
	}
	select {
	case <-c.js.PublishAsyncComplete():
	case <-ctx.Done():
		return ctx.Err()
	}
	consumer, err := c.js.CreateConsumer(ctx, queue, jetstream.ConsumerConfig{
		Durable: "control", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 10 * time.Second, MaxAckPending: 4 * dispatched,
	})
	if err != nil {
		return err
	}
	working, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop() // before the wait
	for range dispatched {
		all.Go(func() { c.dispatch(working, consumer) })
	}
	if err := c.wait(ctx, tasks/4); err != nil {
		return err
	}
	c.say("agent red-1 is killed, and red-2 started")
	c.agents["red"].kill()
	if err := c.start(ctx, executable, "red", "red-2"); err != nil {
		return err
	}
	if err := c.wait(ctx, tasks*3/5); err != nil {
		return err
	}
	c.say("the server is restarted")
	at, is := c.server.Addr().(*net.TCPAddr)
	if !is {
		return errors.New("the server has no address of TCP")
	}
	c.stopServer()
	if c.server, err = startServer(c.dir, at.Port); err != nil {
		return err
	}
	return c.wait(ctx, tasks)
}

// wait waits until so many tasks are done.
func (c *control) wait(ctx context.Context, tasks int) error {
	for {
		c.mu.Lock()
		done := len(c.done)
		c.mu.Unlock()
		if done >= tasks {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d tasks are done: %w", done, tasks, ctx.Err())
		case <-c.progress:
		}
	}
}

// dispatch gives tasks to agents, one after the other, until ctx ends. A task whose agent has failed is given to the next one within
// the call; one that no agent could do now goes back into the queue.
func (c *control) dispatch(ctx context.Context, consumer jetstream.Consumer) {
	for ctx.Err() == nil {
		message, err := consumer.Next(jetstream.FetchMaxWait(time.Second))
		if err != nil {
			pause(ctx, 50*time.Millisecond) // there are no tasks, or the server is away
			continue
		}
		var task Task
		if err := json.Unmarshal(message.Data(), &task); err != nil {
			_ = message.Term() // it will never be one
			continue
		}
		begun := time.Now()
		calling := registryhttp.WithMetadata(ctx, registryhttp.Metadata{Correlation: task.ID})
		result, err := registry.Call(calling, Agents.Bind(c.reg, registry.Query{Require: []string{task.Capability}}),
			func(ctx context.Context, a Agent) (Result, error) { return a.Do(ctx, task) })
		if err != nil {
			_ = message.NakWithDelay(100 * time.Millisecond) // without it the task comes back by itself
			continue
		}
		c.finish(result, time.Since(begun))
		_ = message.DoubleAck(ctx) // without it, as when the server goes away, the task may come again: its effect is the same
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (c *control) finish(result Result, took time.Duration) {
	c.mu.Lock()
	c.done[result.ID]++
	c.latencies = append(c.latencies, took)
	c.mu.Unlock()
	select {
	case c.progress <- struct{}{}:
	default: // it is known
	}
}

// report prints what has become of the tasks, by the effects that they have left.
func (c *control) report(ctx context.Context, tasks int) error {
	stream, err := c.js.Stream(ctx, effects)
	if err != nil {
		return err
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(effectsOf+">"))
	if err != nil {
		return err
	}
	twice := int(info.State.Msgs) - len(info.State.Subjects) //nolint:gosec // few
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, node := range c.source.Fleet().Nodes {
		c.say("node %s is %s and offers %d", node.Name, node.State, len(node.Offers))
	}
	c.say("discovery: %d agents, p50 %v, longest %v", len(c.found), percentile(c.found, 0.5), percentile(c.found, 1))
	c.say("dispatch: p50 %v, p99 %v, longest %v", percentile(c.latencies, 0.5), percentile(c.latencies, 0.99), percentile(c.latencies, 1))
	c.say("tasks %d done %d lost %d twice %d", tasks, len(c.done), tasks-len(info.State.Subjects), twice)
	return nil
}

// say prints a line.
func (c *control) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.out, format+"\n", args...) // what cannot be read need not be told
}
