package federated_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/admin/federated"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/federation/federationtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ttl = time.Second

type greet func() string

var greets = registry.NewService[greet]("greet")

// process is a process of a fleet: a registry with a source and an announcer.
type process struct {
	reg       *registry.Registry
	source    *federation.Source
	announcer *federation.Announcer
	link      *federationtest.Link
	end       func()
}

// begin begins a process with one provider.
func begin(t *testing.T, memory *federationtest.Memory, node, provider string) *process {
	t.Helper()
	reg, err := registry.New(registry.Options{})
	require.NoError(t, err)
	_, err = greets.Register(t.Context(), reg, registry.Provider[greet]{Name: provider, Instance: func() string { return provider }})
	require.NoError(t, err)
	p := &process{reg: reg, link: federationtest.NewLink(memory)}
	p.source, err = federation.NewSource(federation.SourceOptions{
		Store: p.link, Node: node, Bindings: []federation.Binding{federation.Dial(greets, "test", func(_ context.Context, e federation.Entry) (greet, error) {
			return func() string { return e.Address }, nil
		})},
	})
	require.NoError(t, err)
	p.announcer, err = federation.NewAnnouncer(federation.AnnouncerOptions{
		Store: p.link, Node: node, TTL: ttl, Source: p.source, Linger: -1,
		Offer: func(info registry.Info) (federation.Offer, bool) {
			return federation.Offer{Kind: "test", Address: "host:" + info.Name}, info.Name != "private"
		},
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- p.source.Run(ctx, reg) }()
	go func() { ended <- p.announcer.Run(ctx, reg) }()
	p.end = func() {
		cancel()
		for range 2 {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", node, err)
			}
		}
		if err := reg.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	return p
}

func (p *process) node(t *testing.T, name string) admin.FleetNode {
	t.Helper()
	for _, n := range federated.By(p.source, p.announcer).View().Nodes {
		if n.Name == name {
			return n
		}
	}
	require.Fail(t, "there is no node "+name)
	return admin.FleetNode{}
}

func TestBy_ShowsWhatEachNodeAnnounces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := federationtest.NewMemory()
		one, two := begin(t, memory, "one", "a"), begin(t, memory, "two", "b")
		time.Sleep(2*ttl + ttl/10) // not a moment at which leases are renewed
		synctest.Wait()
		seen := federated.By(one.source, one.announcer).View()
		require.True(t, seen.Reachable)
		require.NotEmpty(t, seen.Store)
		require.Equal(t, []any{"one", "serving", 1, 0}, []any{seen.Announcement.Node, seen.Announcement.State, seen.Announcement.Entries, seen.Announcement.Pending})
		n := one.node(t, "two")
		require.Equal(t, []any{"present", false, false, "1s"}, []any{n.State, n.This, n.Suspect, n.TTL})
		require.WithinDuration(t, time.Now(), n.Heard, ttl)
		require.Equal(t, []admin.FleetOffer{{Service: "greet", Name: "b", Kind: "test", Address: "host:b", Visible: true, As: "two/b"}}, n.Offers)
		this := one.node(t, "one")
		require.True(t, this.This)
		require.Equal(t, "the node is this one", this.Offers[0].Reason)
		two.end()
		one.end()
	})
}

func TestBy_ShowsWhichNodeIsSuspectedByWhich(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := federationtest.NewMemory()
		all := map[string]*process{"one": begin(t, memory, "one", "a"), "two": begin(t, memory, "two", "b"), "three": begin(t, memory, "three", "c")}
		time.Sleep(3 * ttl)
		all["three"].link.Cut(false)
		for range 100 { // until the others have said so in their leases
			if n := all["one"].node(t, "three"); n.Suspect && len(n.SuspectedBy) > 0 {
				break
			}
			time.Sleep(ttl / 50)
			synctest.Wait()
		}
		n := all["one"].node(t, "three")
		require.True(t, n.Suspect)
		require.NotEmpty(t, n.Reason)
		require.Contains(t, n.SuspectedBy, "two")
		all["three"].link.Mend()
		time.Sleep(3 * ttl)
		for _, p := range all {
			p.end()
		}
	})
}

func TestBy_SaysThatTheStoreIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := federationtest.NewMemory()
		one := begin(t, memory, "one", "a")
		time.Sleep(2 * ttl)
		memory.Stop()
		time.Sleep(2 * ttl)
		synctest.Wait()
		for _, seen := range []admin.FleetView{federated.By(one.source, one.announcer).View(), federated.By(nil, one.announcer).View(), federated.By(one.source, nil).View()} {
			require.False(t, seen.Reachable)
			require.NotEmpty(t, seen.Cause)
			text, err := json.Marshal(seen)
			require.NoError(t, err)
			require.Contains(t, string(text), `"nodes":[`)
		}
		memory.Start(false)
		time.Sleep(10 * ttl)
		require.True(t, federated.By(nil, one.announcer).View().Reachable)
		require.Empty(t, federated.By(nil, nil).View().Nodes)
		one.end()
	})
}
