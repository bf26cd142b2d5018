package federation_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/federation/federationtest"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/internal/testkit/hosts"
)

func TestMain(m *testing.M) {
	if serveNames() || hosts.Play(connectNode) { // this is a process of a test
		return
	}
	goleak.VerifyTestMain(m)
}

const ttl = time.Second

// greet is the service of the tests.
type greet func() string

var greets = registry.NewService[greet]("greet")

func dial(_ context.Context, e federation.Entry) (greet, error) {
	return func() string { return e.Address }, nil
}

// fleet is a store with processes around it, in a bubble.
type fleet struct {
	*testing.T

	memory *federationtest.Memory
}

func inFleet(t *testing.T, test func(f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(&fleet{t, federationtest.NewMemory()}) })
}

// faulty is a store that takes no record, or gives none, while it is said to. Watches go on.
type faulty struct {
	federation.Store

	noPut, noGet atomic.Bool
}

var errFaulty = errors.New("faulty")

func (s *faulty) Put(ctx context.Context, key string, value []byte) error {
	if s.noPut.Load() {
		return errFaulty
	}
	return s.Store.Put(ctx, key, value)
}

func (s *faulty) Get(ctx context.Context, key string) (federation.Record, error) {
	if s.noGet.Load() {
		return federation.Record{}, errFaulty
	}
	return s.Store.Get(ctx, key)
}

// source begins a source over a link of its own.
func (f *fleet) source(reg *registry.Registry, options federation.SourceOptions) (*federation.Source, *federationtest.Link) {
	f.Helper()
	link := federationtest.NewLink(f.memory)
	options.Store = link
	if options.Bindings == nil {
		options.Bindings = []federation.Binding{federation.Dial(greets, "test", dial)}
	}
	source, err := federation.NewSource(options)
	require.NoError(f, err)
	f.runs(func(ctx context.Context) error { return source.Run(ctx, reg) }, context.Canceled)
	return source, link
}

// announcer begins an announcer over a link of its own, and returns what ends it.
func (f *fleet) announcer(reg *registry.Registry, node string, source *federation.Source) (*federation.Announcer, *federationtest.Link, func()) {
	f.Helper()
	link := federationtest.NewLink(f.memory)
	announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{
		Store: link, Node: node, TTL: ttl, Source: source,
		Offer: func(info registry.Info) (federation.Offer, bool) {
			return federation.Offer{Kind: "test", Address: node + ":" + info.Name}, true
		},
	})
	require.NoError(f, err)
	return announcer, link, f.runs(func(ctx context.Context) error { return announcer.Run(ctx, reg) }, context.Canceled)
}

// runs begins a run that ends with the test, or when the returned function is called, with that error.
func (f *fleet) runs(run func(ctx context.Context) error, want error) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	end = func() {
		f.Helper()
		cancel()
		select {
		case err := <-ended:
			require.ErrorIs(f, err, want)
			ended <- err
		case <-time.After(time.Minute):
			require.Fail(f, "it goes on after its context has ended")
		}
	}
	f.Cleanup(end)
	return end
}

func (f *fleet) registry() *registry.Registry {
	f.Helper()
	return testkit.New(f.T, registry.Options{})
}

func (f *fleet) add(reg *registry.Registry, name string) *registry.Registration {
	f.Helper()
	registration, err := greets.Register(f.Context(), reg, registry.Provider[greet]{Name: name, Instance: func() string { return name }})
	require.NoError(f, err)
	return registration
}

// write writes a record as another process may.
func (f *fleet) write(key string, value any) {
	f.Helper()
	text, err := json.Marshal(value)
	require.NoError(f, err)
	require.NoError(f, f.memory.Put(f.Context(), key, text))
	synctest.Wait()
}

// lease writes the lease of node n, and its record of a provider p before that.
func (f *fleet) lease(incarnation string, phase federation.Phase) {
	f.Helper()
	f.write("entry.n."+incarnation+".Z3JlZXQ.cA", federation.Entry{ // p
		Node: "n", Incarnation: incarnation, Kind: "test", Address: "there", Definition: registry.Definition{Service: "greet", Name: "p"},
	})
	f.write("lease.n", federation.Lease{Node: "n", Incarnation: incarnation, Phase: phase, TTL: ttl})
}

func (f *fleet) delete(key string) {
	f.Helper()
	require.NoError(f, f.memory.Delete(f.Context(), key, 0))
	synctest.Wait()
}

// after lets time pass.
func after(d time.Duration) {
	testkit.Pass(d)
	synctest.Wait()
}

func names(reg *registry.Registry) []string { return testkit.Names(testkit.Infos(reg)) }

// stateOf returns how the source sees a node.
func stateOf(source *federation.Source, node string) federation.Node {
	for _, n := range source.Fleet().Nodes {
		if n.Name == node {
			return n
		}
	}
	return federation.Node{}
}

// offerOnly makes the providers of a registry those of these names.
func offerOnly(tb testing.TB, reg *registry.Registry, names []string) {
	tb.Helper()
	var u registry.Update
	want := map[string]bool{}
	for _, name := range names {
		want[name] = true
		if _, there := reg.Provider("greet", name); !there {
			greets.AddTo(&u, registry.Provider[greet]{Name: name, Instance: func() string { return name }})
		}
	}
	for info := range reg.All() {
		if !want[info.Name] {
			u.Remove("greet", info.Name)
		}
	}
	require.NoError(tb, reg.Update(context.Background(), &u))
}
