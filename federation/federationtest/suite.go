package federationtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/federation"
)

// StoreSuite is a store under test, together with control over its engine.
type StoreSuite struct {
	// Open returns a store that is empty for each name and the same for the same name, over a connection of its own, and
	// closes it with the test.
	Open func(tb testing.TB, name string) federation.Store
	// Restart ends the engine as kill −9 does, begins it again after the time, with its data or without, and
	// returns when it is reachable. Stores of Open find it again by themselves. nil: what needs it is left out.
	Restart func(tb testing.TB, down time.Duration, wiped bool)
	// Outages are further ways in which the engine fails, such as a cluster that loses its quorum. Default: none.
	Outages []Outage
	// TTL is that of the leases, long enough that no node of a slow machine is silent for as long. Default: one second.
	TTL time.Duration
	// Within bounds each wait. Default: ten TTLs, and at least 20 s.
	Within time.Duration
	// Entries is the number of records of a large node. Default: 10,000.
	Entries int
}

// Outage is a way in which the engine of a store fails for some time, without the loss of what it has acknowledged.
type Outage struct {
	// What says in a few words what fails, such as "the leader of a cluster ends".
	What string
	// Make makes it fail for the time, and returns when it is whole again. The name is that of the store, as in [StoreSuite.Open].
	Make func(tb testing.TB, name string, down time.Duration)
}

// TestStore checks that an implementation of [federation.Store] keeps the contract, and that sources and announcers over it
// fulfil their promises when processes are killed, connections cut and the engine is restarted, with and without its data. Each
// check has a store of its own.
func TestStore(tb testing.TB, suite StoreSuite) {
	tb.Helper()
	if suite.Open == nil {
		tb.Fatalf("federationtest: a StoreSuite needs Open")
	}
	if suite.TTL == 0 {
		suite.TTL = time.Second
	}
	if suite.Within == 0 {
		suite.Within = max(10*suite.TTL, 20*time.Second)
	}
	if suite.Entries == 0 {
		suite.Entries = 10_000
	}
	type check struct {
		what string
		run  func(*trial)
	}
	checks := []check{
		{"a store keeps its contract", (*trial).contract},
		{"a watch tells what is there and then each change", (*trial).watching},
		{"a provider is seen, changed in place and removed elsewhere", (*trial).life},
		{"a node says that it leaves", (*trial).goodbye},
		{"a node that is killed is evicted, and no other", (*trial).killed},
		{"a node that is killed is replaced under its name", (*trial).replaced},
		{"a second node of one name is refused", (*trial).duplicate},
		{"an announcer that is cut off is evicted and comes back", (*trial).announcerCut},
		{"an announcer that is cut off loses its name to another one", (*trial).nameLost},
		{"a source that is cut off keeps what it knows", (*trial).sourceCut},
		{"a source that has missed changes reads the store again", (*trial).changesMissed},
		{"a bad record is refused and named", (*trial).hostile},
		{"many records are seen, through a slow registry too", (*trial).many},
		{"many changes end in what is true", (*trial).busy},
		{"a restart of the engine removes nothing", func(t *trial) { t.restart(0, false) }},
		{"an outage that is longer than the leases removes nothing", func(t *trial) { t.restart(2*suite.TTL, false) }},
		{"the loss of all data removes nothing", func(t *trial) { t.restart(0, true) }},
	}
	for _, outage := range suite.Outages {
		checks = append(checks, check{outage.What, func(t *trial) {
			t.outage(func() { outage.Make(t.tb, t.name, 2*suite.TTL) })
		}})
	}
	for i, check := range checks {
		t := &trial{StoreSuite: suite, tb: tb, what: check.what, name: fmt.Sprintf("suite-%d", i)}
		begun := time.Now()
		check.run(t)
		t.end()
		tb.Logf("federationtest: %s: %v", t.what, time.Since(begun).Round(time.Millisecond))
		if tb.Failed() {
			return // what follows would be slow to fail
		}
	}
}

// trial is one check.
type trial struct {
	StoreSuite

	tb     testing.TB
	what   string
	name   string
	failed bool
	ends   []func()
}

func (t *trial) end() {
	for _, end := range slices.Backward(t.ends) {
		end()
	}
}

// fail reports the first fault of a check; later ones follow from it.
func (t *trial) fail(format string, args ...any) {
	t.tb.Helper()
	if !t.failed {
		t.tb.Errorf("federationtest: %s: %s", t.what, fmt.Sprintf(format, args...))
	}
	t.failed = true
}

// eventually waits until the condition holds.
func (t *trial) eventually(what string, holds func() bool) {
	t.tb.Helper()
	late := time.Now().Add(t.Within)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !t.failed && !holds() {
		if time.Now().After(late) {
			t.fail("not within %v: %s", t.Within, what)
			return
		}
		<-tick.C
	}
}

// pass lets time go by.
func (t *trial) pass(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

func (t *trial) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), t.Within)
}

// greeter is the service of the suite.
type greeter func(ctx context.Context) (string, error)

var greeters = registry.NewService[greeter]("federationtest/greeter")

const kind = "suite"

// process is a process of a fleet: its registry, and its way to the store.
type process struct {
	*trial

	node      string
	link      *Link
	reg       *registry.Registry
	source    *federation.Source
	announcer *federation.Announcer
	stop      context.CancelFunc
	announced chan error
	sourced   chan error
}

// process begins a process that announces what it registers, under the name of a node, and sees that of others. An empty
// name is that of a process that only sees.
func (t *trial) process(node string, options registry.Options) *process {
	t.tb.Helper()
	reg, err := registry.New(options)
	if err != nil {
		t.tb.Fatalf("federationtest: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &process{
		trial: t, node: node, reg: reg, link: NewLink(t.Open(t.tb, t.name)), stop: stop,
		announced: make(chan error, 1), sourced: make(chan error, 1),
	}
	p.source, err = federation.NewSource(federation.SourceOptions{
		Store: p.link, Node: node,
		Bindings: []federation.Binding{federation.Dial(greeters, kind, func(_ context.Context, e federation.Entry) (greeter, error) {
			return func(context.Context) (string, error) { return e.Address, nil }, nil
		})},
	})
	if err != nil {
		t.tb.Fatalf("federationtest: %v", err)
	}
	go func() { p.sourced <- p.source.Run(ctx, reg) }()
	if node == "" {
		p.announced <- nil
	} else {
		p.announcer, err = federation.NewAnnouncer(federation.AnnouncerOptions{
			Store: p.link, Node: node, TTL: t.TTL, Linger: t.TTL / 10, Source: p.source, LeaveWithin: t.TTL,
			Offer: func(info registry.Info) (federation.Offer, bool) {
				return federation.Offer{Kind: kind, Address: node + ":" + info.Name}, true
			},
		})
		if err != nil {
			t.tb.Fatalf("federationtest: %v", err)
		}
		go func() { p.announced <- p.announcer.Run(ctx, reg) }()
	}
	t.ends = append(t.ends, p.end)
	return p
}

// end ends the process as its program would, as far as it still runs.
func (p *process) end() {
	p.link.Mend()
	p.stop()
	for _, ended := range []chan error{p.announced, p.sourced} {
		late := time.NewTimer(p.Within)
		select {
		case err := <-ended:
			ended <- err
		case <-late.C:
			p.fail("node %q still runs %v after its context has ended", p.node, p.Within)
		}
		late.Stop()
	}
	closing, cancel := p.context()
	defer cancel()
	if err := p.reg.Close(closing); err != nil {
		p.fail("the registry of node %q does not close: %v", p.node, err)
	}
}

// kill ends the process as kill −9 does for all others: nothing is written any more.
func (p *process) kill() {
	p.link.Cut(true)
	p.stop()
}

func (p *process) add(names ...string) {
	p.tb.Helper()
	for _, name := range names {
		_, err := greeters.Register(context.Background(), p.reg, registry.Provider[greeter]{
			Name: name, Instance: func(context.Context) (string, error) { return name, nil },
		})
		if err != nil {
			p.fail("provider %q: %v", name, err)
		}
	}
}

func (p *process) drop(name string) {
	if registration, there := p.reg.Provider(greeters.Name(), name); there {
		ctx, cancel := p.context()
		defer cancel()
		if err := registration.Unregister(ctx); err != nil {
			p.fail("provider %q: %v", name, err)
		}
	}
}

// sees waits until the process has providers of exactly these names.
func (p *process) sees(names ...string) {
	p.tb.Helper()
	p.eventually(fmt.Sprintf("node %q sees %s", p.node, few(names)), func() bool { return p.has(names...) })
	if p.failed {
		p.tb.Logf("node %q sees %s; %.4000s", p.node, few(p.names()), fmt.Sprintf("%+v", p.source.Fleet()))
	}
}

// few returns names for a report, of many the first ones.
func few(names []string) string {
	if len(names) <= 10 {
		return fmt.Sprint(names)
	}
	return fmt.Sprintf("%v and %d others", names[:10], len(names)-10)
}

func (p *process) names() (names []string) {
	for info := range p.reg.All() {
		names = append(names, info.Name)
	}
	return names
}

func (p *process) has(names ...string) bool {
	for _, name := range names {
		if _, there := p.reg.Provider(greeters.Name(), name); !there {
			return false
		}
	}
	return len(p.reg.Registrations()) == len(names)
}

func (p *process) generation(name string) uint64 {
	if registration, there := p.reg.Provider(greeters.Name(), name); there {
		return registration.Info().Generation
	}
	return 0
}

// calls asks the provider of that name alone, and returns its answer.
func (p *process) calls(name string) string {
	ctx, cancel := p.context()
	defer cancel()
	answer, err := registry.Call(ctx, greeters.Bind(p.reg, registry.Query{Only: []string{name}}),
		func(ctx context.Context, g greeter) (string, error) { return g(ctx) })
	if err != nil {
		p.fail("the call of %q: %v", name, err)
	}
	return answer
}

// still returns a function that checks that none of the present providers has left since, or was registered again.
func (p *process) still(names ...string) (check func()) {
	p.tb.Helper()
	p.sees(names...)
	before := map[string]uint64{}
	for _, name := range names {
		before[name] = p.generation(name)
	}
	leaving := p.reg.Subscribe(0, event.Filter{Kinds: []event.Kind{event.Draining}, Providers: names})
	return func() {
		p.tb.Helper()
		leaving.Close()
		for e := range leaving.All(context.Background()) {
			p.fail("node %q has lost %q: %s", p.node, e.Provider, e.Reason)
		}
		for _, name := range names {
			if p.generation(name) != before[name] {
				p.fail("node %q has registered %q again", p.node, name)
			}
		}
	}
}

// state waits until the process sees the node in the state; "" for none.
func (p *process) state(node string, want federation.NodeState) {
	p.tb.Helper()
	p.eventually(fmt.Sprintf("node %q is %q for node %q", node, want, p.node), func() bool {
		return p.stateOf(node) == want
	})
}

func (p *process) stateOf(node string) federation.NodeState {
	for _, n := range p.source.Fleet().Nodes {
		if n.Name == node {
			return n.State
		}
	}
	return ""
}

// offers counts what the process knows of the offers of a node, whether or not they are registered.
func (p *process) offers(node string) int {
	for _, n := range p.source.Fleet().Nodes {
		if n.Name == node {
			return len(n.Offers)
		}
	}
	return 0
}

// ended waits for the end of the announcer.
func (p *process) ended() error {
	late := time.NewTimer(p.Within)
	defer late.Stop()
	select {
	case err := <-p.announced:
		p.announced <- err
		return err
	case <-late.C:
		p.fail("the announcer of node %q goes on", p.node)
		return nil
	}
}

// explained waits until the process explains by that text why it does not see the provider of node a.
func (p *process) explained(name, text string) {
	p.tb.Helper()
	p.eventually(fmt.Sprintf("%q of node a is not seen, as %s", name, text), func() bool {
		o := p.source.Explain("a", greeters.Name(), name)
		return !o.Visible && strings.Contains(o.Reason, text)
	})
	if p.failed {
		p.tb.Logf("%+v", p.source.Explain("a", greeters.Name(), name))
	}
}

func isTaken(err error) bool { return errors.Is(err, federation.ErrTaken) }
