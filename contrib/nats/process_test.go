package registrynats_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/nats"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/federation"
)

// roleVariable has the role that this program plays instead of the tests.
const roleVariable = "REGISTRYNATS_ROLE"

// The streams of the processes.
const (
	queueStream   = "TASKS"
	effectsStream = "EFFECTS"
	hands         = 8 // tasks that a control has under way
)

// role is what a process does, until its standard input ends.
type role struct {
	What      string        `json:"what"`
	Node      string        `json:"node,omitempty"`
	URLs      string        `json:"urls,omitempty"`
	TTL       time.Duration `json:"ttl,omitempty"`
	Replicas  int           `json:"replicas,omitempty"`
	Providers []string      `json:"providers,omitempty"`

	// Of a server.
	Host   string `json:"host,omitempty"`
	Port   int    `json:"port,omitempty"`
	Routed int    `json:"routed,omitempty"`
	Routes string `json:"routes,omitempty"`
	Dir    string `json:"dir,omitempty"`
}

// play plays the role of the environment, if there is one.
func play() bool {
	text := os.Getenv(roleVariable)
	if text == "" {
		return false
	}
	var r role
	err := json.Unmarshal([]byte(text), &r)
	if err == nil {
		err = map[string]func(role) error{"server": serveNATS, "agent": beAgent, "control": beControl}[r.What](r)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s %s: %v\n", r.What, r.Node, err)
		os.Exit(1)
	}
	return true
}

func serveNATS(r role) error {
	options := &server.Options{
		ServerName: r.Node, Host: r.Host, Port: r.Port, JetStream: true, StoreDir: r.Dir, NoLog: true, NoSigs: true,
	}
	if r.Routes != "" {
		options.Cluster = server.ClusterOpts{
			Name: "cluster", Host: r.Host, Port: r.Routed, PingInterval: pingEvery, MaxPingsOut: 2, // else a route that is silent is given up after a minute
		}
		options.Routes = server.RoutesFromStr(r.Routes)
	}
	s, err := server.NewServer(options)
	if err != nil {
		return err
	}
	s.Start()
	_, err = io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
	s.WaitForShutdown()
	return err
}

// member has the parts of a process of the fleet.
type member struct {
	nc    *nats.Conn
	js    jetstream.JetStream
	reg   *registry.Registry
	store *registrynats.Store
}

func (r role) member() (m *member, err error) {
	m = &member{}
	options := append(registrynats.Options(), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), nats.Timeout(time.Second))
	if m.nc, err = nats.Connect(r.URLs, options...); err != nil {
		return nil, err
	}
	if m.js, err = jetstream.New(m.nc); err != nil {
		return nil, err
	}
	if m.store, err = registrynats.NewStore(m.nc, registrynats.StoreOptions{Replicas: r.Replicas}); err != nil {
		return nil, err
	}
	m.reg, err = registry.New(registry.Options{})
	return m, err
}

// impatient asks a provider again soon: while a server of NATS is away, each agent fails, and no other could be asked instead.
var impatient = registry.BreakerPolicy{RecoveryTimeout: 250 * time.Millisecond}

// beAgent offers providers that leave an effect for each task; a line of standard input is the name of one more.
func beAgent(r role) error {
	m, err := r.member()
	if err != nil {
		return err
	}
	calls, err := registrynats.NewServer(m.nc, m.reg, registrynats.ServerOptions{Node: r.Node})
	if err != nil {
		return err
	}
	if err := askOn(calls); err != nil {
		return err
	}
	announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{Store: m.store, Node: r.Node, Offer: calls.Offer, TTL: r.TTL})
	if err != nil {
		return err
	}
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	left := make(chan error, 1)
	go func() { left <- announcer.Run(ctx, m.reg) }()
	add := func(name string) error {
		_, err := askers.Register(ctx, m.reg, registry.Provider[asker]{
			Name: name, Strategy: registry.StrategyRoundRobin, Breaker: impatient,
			Instance: func(ctx context.Context, q question) (reply, error) {
				_, err := m.js.Publish(ctx, "effects."+q.Text, []byte(r.Node), jetstream.WithMsgID(q.Text))
				return reply{Text: q.Text}, err
			},
		})
		return err
	}
	for _, name := range r.Providers {
		if err := add(name); err != nil {
			return err
		}
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := add(lines.Text()); err != nil {
			return err
		}
	}
	leave()
	err = <-left
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, calls.Drain(context.Background()))
}

// beControl gives the tasks of the queue to the agents, and says on standard output which of these come and go.
func beControl(r role) error {
	m, err := r.member()
	if err != nil {
		return err
	}
	source, err := federation.NewSource(federation.SourceOptions{Store: m.store, Bindings: []federation.Binding{
		askersOver(m.nc)[0].Configure(func(_ federation.Entry, p *registry.Provider[any]) {
			p.AttemptTimeout, p.Breaker = 2*time.Second, impatient
		}),
	}})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	changes := m.reg.Subscribe(4096, event.Filter{Kinds: []event.Kind{event.Registered, event.Draining}})
	var all sync.WaitGroup
	all.Go(func() {
		for e := range changes.All(ctx) {
			if ctx.Err() == nil {
				fmt.Println(e.Kind, e.Provider, e.Lost)
			}
		}
	})
	all.Go(func() { _ = source.Run(ctx, m.reg) })
	if r.Replicas > 0 {
		for range hands {
			all.Go(func() { m.dispatch(ctx) })
		}
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	stop()
	all.Wait()
	return err
}

// dispatch gives one task after the other to an agent.
func (m *member) dispatch(ctx context.Context) {
	resolver := askers.Bind(m.reg, registry.Query{})
	var consumer jetstream.Consumer
	for ctx.Err() == nil {
		var err error
		var message jetstream.Msg
		if consumer == nil {
			asking, cancel := context.WithTimeout(ctx, 2*time.Second)
			consumer, err = m.js.Consumer(asking, queueStream, "control")
			cancel()
		}
		if err == nil {
			message, err = consumer.Next(jetstream.FetchMaxWait(time.Second))
		}
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond): // there are no tasks, or the server is away
			}
			continue
		}
		task := string(message.Data())
		trying, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err = registry.Call(trying, resolver, func(ctx context.Context, a asker) (reply, error) { return a(ctx, question{Text: task}) })
		if err != nil {
			_ = message.NakWithDelay(100 * time.Millisecond) // without it the task comes again by itself
		} else {
			_ = message.DoubleAck(trying) // as above
		}
		cancel()
	}
}

// process is a process of its own that plays a role.
type process struct {
	role role
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  chan struct{} // closed when its output has ended

	mu    sync.Mutex // guards what follows
	lines []string   // of its standard output
}

// beginProcess starts this program in a role; the command before it, such as ip netns exec, may be empty.
func beginProcess(tb testing.TB, r role, before ...string) *process {
	tb.Helper()
	executable, err := os.Executable()
	require.NoError(tb, err)
	text, err := json.Marshal(r)
	require.NoError(tb, err)
	words := slices.Concat(before, []string{executable})
	p := &process{role: r, out: make(chan struct{})}
	p.cmd = exec.CommandContext(context.Background(), words[0], words[1:]...)
	p.cmd.Env = append(os.Environ(), roleVariable+"="+string(text), "GOMAXPROCS=2")
	p.cmd.Stderr = os.Stderr
	p.in, err = p.cmd.StdinPipe()
	require.NoError(tb, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(tb, err)
	require.NoError(tb, p.cmd.Start())
	go p.read(out)
	tb.Cleanup(p.kill)
	return p
}

func (p *process) read(out io.Reader) {
	defer close(p.out)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		p.mu.Lock()
		p.lines = append(p.lines, lines.Text())
		p.mu.Unlock()
	}
}

// said returns the lines that the process has written.
func (p *process) said() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.lines...)
}

// kill ends the process as kill −9 does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.out
	_ = p.cmd.Wait() // that it was killed
}

// end lets the process end by itself.
func (p *process) end(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, p.in.Close())
	<-p.out
	require.NoError(tb, p.cmd.Wait())
}

// numberOf returns a number of the environment, or the default.
func numberOf(tb testing.TB, variable string, without int) int {
	tb.Helper()
	text := strings.TrimSpace(os.Getenv(variable))
	if text == "" {
		return without
	}
	n, err := strconv.Atoi(text)
	require.NoError(tb, err, variable)
	return n
}
