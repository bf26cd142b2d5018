// Command fleet measures package federation over an embedded server of NATS, in one process: how soon a registration and a removal are
// seen elsewhere, what a call costs beside a bare request, how many tasks a second go through a work
// queue beside bare JetStream, what a pick of a remote provider costs beside a local one, and what a fleet costs at rest.
//
//	go run ./benchmarks/fleet
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/nats"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/federation"
)

// echo is the service that is measured.
type echo func(ctx context.Context, text string) (string, error)

var echoes = registry.NewService[echo]("echo")

// sizes says how much is measured.
type sizes struct {
	changes, calls, picks int
	tasks                 int
	nodes, entries        int
	rest                  time.Duration
}

func main() {
	s := sizes{}
	flag.IntVar(&s.changes, "changes", 2000, "the `number` of registrations and removals")
	flag.IntVar(&s.calls, "calls", 20_000, "the `number` of calls")
	flag.IntVar(&s.tasks, "tasks", 50_000, "the `number` of tasks, ten times")
	flag.IntVar(&s.picks, "picks", 2_000_000, "the `number` of picks")
	flag.IntVar(&s.nodes, "nodes", 100, "the `number` of nodes at rest")
	flag.IntVar(&s.entries, "entries", 100, "the `number` of providers of each")
	flag.DurationVar(&s.rest, "rest", 20*time.Second, "the `time` for which they rest")
	flag.Parse()
	if err := run(context.Background(), s, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// bench is a server of NATS and what runs on it.
type bench struct {
	out  io.Writer
	url  string
	all  sync.WaitGroup
	ends []func()
}

func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.out, format+"\n", args...) // what cannot be read need not be told
}

func (b *bench) end() {
	for _, end := range slices.Backward(b.ends) {
		end()
	}
	b.all.Wait()
}

// process holds the parts of one process of a fleet.
type process struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	reg *registry.Registry
}

// process begins a process, which announces under the name of a node, or sees what others announce if the name is empty.
func (b *bench) process(ctx context.Context, node string) (*process, error) {
	nc, err := nats.Connect(b.url, registrynats.Options()...)
	if err != nil {
		return nil, err
	}
	b.ends = append(b.ends, nc.Close)
	js, err := newJetStream(nc)
	if err != nil {
		return nil, err
	}
	store, err := registrynats.NewStore(nc, registrynats.StoreOptions{Memory: true})
	if err != nil {
		return nil, err
	}
	reg, err := registry.New(registry.Options{})
	if err != nil {
		return nil, err
	}
	b.ends = append(b.ends, func() { _ = reg.Close(context.WithoutCancel(ctx)) })
	if node == "" {
		source, err := federation.NewSource(federation.SourceOptions{Store: store, Bindings: []federation.Binding{
			federation.Dial(echoes, registrynats.Kind, func(_ context.Context, e federation.Entry) (echo, error) {
				return registrynats.NewStub[string, string](nc, e, "echo"), nil
			}),
			bindQueues(js),
		}})
		if err != nil {
			return nil, err
		}
		b.all.Go(func() { _ = source.Run(ctx, reg) }) // it ends with ctx
		return &process{nc, js, reg}, nil
	}
	calls, err := registrynats.NewServer(nc, reg, registrynats.ServerOptions{Node: node})
	if err != nil {
		return nil, err
	}
	err = registrynats.Serve(calls, echoes, "echo", func(ctx context.Context, e echo, text string) (string, error) { return e(ctx, text) })
	if err != nil {
		return nil, err
	}
	announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{Store: store, Node: node, Linger: -1, Offer: func(info registry.Info) (federation.Offer, bool) {
		if info.Service == queues.Name() {
			return federation.Offer{Kind: queueKind, Address: "tasks." + node}, true
		}
		return calls.Offer(info)
	}})
	if err != nil {
		return nil, err
	}
	b.all.Go(func() { _ = announcer.Run(ctx, reg) }) // it ends with ctx
	return &process{nc, js, reg}, nil
}

func register(ctx context.Context, reg *registry.Registry, name string) (*registry.Registration, error) {
	return echoes.Register(ctx, reg, registry.Provider[echo]{
		Name: name, Instance: func(_ context.Context, text string) (string, error) { return text, nil },
	})
}

func run(ctx context.Context, s sizes, out io.Writer) error {
	dir, err := os.MkdirTemp("", "fleet")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is temporary
	ns, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true})
	if err != nil {
		return err
	}
	ns.Start()
	defer func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	}()
	if !ns.ReadyForConnections(30 * time.Second) {
		return errors.New("the server of NATS does not start")
	}
	ctx, cancel := context.WithCancel(ctx)
	b := &bench{out: out, url: ns.ClientURL()}
	defer b.end()
	defer cancel() // before the end
	far, err := b.process(ctx, "far")
	if err != nil {
		return err
	}
	near, err := b.process(ctx, "")
	if err != nil {
		return err
	}
	for _, measure := range []func(context.Context, *bench, sizes, *process, *process) error{measureChanges, measureCalls, measureTasks, measurePicks, measureRest} {
		if err := measure(ctx, b, s, far, near); err != nil {
			return err
		}
	}
	return nil
}

// await returns the moment of the next event of the kind.
func await(ctx context.Context, seen *registry.Subscription, name string) (time.Time, error) {
	for {
		e, err := seen.Next(ctx)
		if err != nil || e.Provider == name {
			return e.Time, err
		}
	}
}

func measureChanges(ctx context.Context, b *bench, s sizes, far, near *process) error {
	came := near.reg.Subscribe(0, event.Filter{Kinds: []event.Kind{event.Registered}})
	defer came.Close()
	went := near.reg.Subscribe(0, event.Filter{Kinds: []event.Kind{event.Draining}})
	defer went.Close()
	var registered, removed []time.Duration
	for i := range s.changes + 1 {
		begun := time.Now()
		registration, err := register(ctx, far.reg, fmt.Sprintf("p%d", i))
		if err != nil {
			return err
		}
		at, err := await(ctx, came, "far/"+registration.Name())
		if err != nil {
			return err
		}
		took := at.Sub(begun)
		begun = time.Now()
		if err := registration.Unregister(ctx); err != nil {
			return err
		}
		if at, err = await(ctx, went, "far/"+registration.Name()); err != nil {
			return err
		}
		if i > 0 { // the first one waits for the start
			registered, removed = append(registered, took), append(removed, at.Sub(begun))
		}
	}
	b.say("registration seen elsewhere: p50 %v p99 %v", percentile(registered, 0.5), percentile(registered, 0.99))
	b.say("removal seen elsewhere:      p50 %v p99 %v", percentile(removed, 0.5), percentile(removed, 0.99))
	return nil
}

// timed runs the function so many times, in turns of two, so that both see the same machine.
func timed(n int, f, g func() error) (ofF, ofG []time.Duration, err error) {
	for range n {
		begun := time.Now()
		if err := f(); err != nil {
			return nil, nil, err
		}
		between := time.Now()
		if err := g(); err != nil {
			return nil, nil, err
		}
		ofF, ofG = append(ofF, between.Sub(begun)), append(ofG, time.Since(between))
	}
	return ofF, ofG, nil
}

// used returns the processor time that one run of each function takes, which are run so many times, in turns of a hundred.
func used(n int, f, g func() error) (ofF, ofG time.Duration, err error) {
	const turn = 100
	turns := (n + turn - 1) / turn
	for range turns {
		for of, run := range map[*time.Duration]func() error{&ofF: f, &ofG: g} {
			before := cpuTime()
			for range turn {
				if err := run(); err != nil {
					return 0, 0, err
				}
			}
			*of += cpuTime() - before
		}
	}
	each := time.Duration(turns * turn)
	return ofF / each, ofG / each, nil
}

const requestTimeout = 30 * time.Second // that of an attempt by default

func measureCalls(ctx context.Context, b *bench, s sizes, far, near *process) error {
	registration, err := register(ctx, far.reg, "callee")
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := near.reg.WaitReady(waiting, echoes.Name()); err != nil {
		return err
	}
	bare, err := far.nc.Subscribe("bare", func(m *nats.Msg) { _ = m.Respond(m.Data) })
	if err != nil {
		return err
	}
	defer bare.Unsubscribe() //nolint:errcheck // the connection closes
	if err := far.nc.Flush(); err != nil {
		return err
	}
	resolver := echoes.Bind(near.reg, registry.Query{})
	call := func() error {
		_, err := registry.Call(ctx, resolver, func(ctx context.Context, e echo) (string, error) { return e(ctx, "hello") })
		return err
	}
	request := func() error { // bounded in time by a context, as calls are
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		_, err := near.nc.RequestWithContext(ctx, "bare", []byte(`"hello"`))
		return err
	}
	calls, requests, err := timed(s.calls, call, request)
	if err != nil {
		return err
	}
	ofCalls, ofRequests, err := used(s.calls, call, request)
	if err != nil {
		return err
	}
	b.say("call over NATS:              p50 %v p99 %v", percentile(calls, 0.5), percentile(calls, 0.99))
	b.say("bare request and reply:      p50 %v p99 %v, ratio of the medians %.2f",
		percentile(requests, 0.5), percentile(requests, 0.99), float64(percentile(calls, 0.5))/float64(percentile(requests, 0.5)))
	b.say("processor time of both sides and the server of NATS: call %v, bare request %v, ratio %.2f",
		ofCalls, ofRequests, float64(ofCalls)/float64(max(ofRequests, 1)))
	return registration.Unregister(ctx)
}

func measurePicks(ctx context.Context, b *bench, s sizes, far, near *process) error {
	for i := range s.entries {
		if _, err := register(ctx, far.reg, fmt.Sprintf("remote%d", i)); err != nil {
			return err
		}
	}
	local, err := registry.New(registry.Options{})
	if err != nil {
		return err
	}
	defer local.Close(ctx) //nolint:errcheck // it has no calls
	for i := range s.entries {
		if _, err := register(ctx, local, fmt.Sprintf("local%d", i)); err != nil {
			return err
		}
	}
	if err := b.until(ctx, near.reg, s.entries); err != nil {
		return err
	}
	pick := func(reg *registry.Registry) (time.Duration, error) {
		resolver := echoes.Bind(reg, registry.Query{})
		if _, err := resolver.Get(ctx); err != nil {
			return 0, err
		}
		begun := time.Now()
		for range s.picks {
			if _, err := resolver.Get(ctx); err != nil {
				return 0, err
			}
		}
		return time.Since(begun) / time.Duration(s.picks), nil
	}
	remotely, err := pick(near.reg)
	if err != nil {
		return err
	}
	locally, err := pick(local)
	b.say("pick among %d:               remote %v local %v", s.entries, remotely, locally)
	return err
}

// until waits until the registry has so many providers.
func (*bench) until(ctx context.Context, reg *registry.Registry, want int) error {
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for len(reg.Registrations()) != want {
		select {
		case <-waiting.Done():
			return fmt.Errorf("there are %d providers, want %d: %w", len(reg.Registrations()), want, waiting.Err())
		case <-tick.C:
		}
	}
	return nil
}

// percentile returns the value below which that share of the values is.
func percentile(values []time.Duration, share float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(int(share*float64(len(values))), len(values)-1)].Round(time.Microsecond)
}
