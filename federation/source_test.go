package federation_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/federation/federationtest"
	"github.com/capreg/registry/registrytest"
)

func TestSource_BehavesAsPackageRegistrytestExpects(t *testing.T) {
	t.Parallel()
	registrytest.TestSource(t, func(tb testing.TB) registrytest.Source {
		memory, outside := federationtest.NewMemory(), registrytest.New(tb, registry.Options{})
		link := federationtest.NewLink(memory)
		announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{
			Store: memory, Node: "n", Offer: func(registry.Info) (federation.Offer, bool) { return federation.Offer{Kind: "test"}, true },
		})
		require.NoError(tb, err)
		source, err := federation.NewSource(federation.SourceOptions{
			Store: link, Bindings: []federation.Binding{federation.Dial(greets, "test", dial)},
		})
		require.NoError(tb, err)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- announcer.Run(ctx, outside) }()
		tb.Cleanup(func() {
			cancel()
			require.ErrorIs(tb, <-ended, context.Canceled)
		})
		return registrytest.Source{
			Run:  source.Run,
			Name: func(name string) string { return "n/" + name },
			Set:  func(names ...string) { offerOnly(tb, outside, names) },
			Unreachable: func(yes bool) {
				if link.Mend(); yes {
					link.Cut(false)
				}
			},
			Within: time.Second,
		}
	})
}

func TestSource_DrainsWhatLeavesAndLetsCallsEnd(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		reg := f.registry()
		f.source(reg, federation.SourceOptions{})
		f.lease("1", federation.Serving)
		after(0)
		lease, err := greets.Bind(reg, registry.Query{}).Acquire(f.Context())
		require.NoError(f, err)
		f.lease("1", federation.Leaving)
		require.Empty(f, names(reg))
		require.NoError(f, lease.Context().Err(), "a call in flight goes on")
		lease.Done(nil)
	})
}

func TestSource_HearsThatTheStoreIsBack(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		reg := f.registry()
		store := &faulty{Store: f.memory}
		source, err := federation.NewSource(federation.SourceOptions{
			Store: store, Bindings: []federation.Binding{federation.Dial(greets, "test", dial)},
		})
		require.NoError(f, err)
		f.runs(func(ctx context.Context) error { return source.Run(ctx, reg) }, context.Canceled)
		f.lease("1", federation.Serving)
		after(0)
		store.noGet.Store(true)
		after(2 * ttl)
		require.False(f, source.Fleet().Reachable)
		f.lease("1", federation.Serving)
		require.True(f, source.Fleet().Reachable)
		require.Empty(f, source.Fleet().Cause)
		store.noGet.Store(false)
		after(2 * ttl)
		require.Empty(f, names(reg), "a node that is gone after that is evicted in time")
	})
}

func TestSource_ConfiguresAndDialsByBinding(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		reg := f.registry()
		dials := 0
		binding := federation.Dial(greets, "test", func(ctx context.Context, e federation.Entry) (greet, error) {
			dials++
			return dial(ctx, e)
		}).Configure(func(_ federation.Entry, p *registry.Provider[any]) { p.Group += 10 })
		f.source(reg, federation.SourceOptions{Bindings: []federation.Binding{binding}})
		f.lease("1", federation.Serving)
		after(0)
		registration, _ := reg.Provider("greet", "n/p")
		require.Equal(f, 10, registration.Group())
		require.Zero(f, dials, "before the first need")
		get := func() string {
			g, err := greets.Get(f.Context(), reg, registry.Query{})
			require.NoError(f, err)
			return g()
		}
		require.Equal(f, "there", get())
		entry := federation.Entry{
			Node: "n", Incarnation: "1", Kind: "test", Address: "there",
			Definition: registry.Definition{Service: "greet", Name: "p", Group: 2, Weight: 3},
		}
		f.write("entry.n.1.Z3JlZXQ.cA", entry)
		require.Equal(f, 12, registration.Group(), "in place")
		require.Equal(f, "there", get())
		require.Equal(f, 1, dials)
		entry.Address = "elsewhere"
		f.write("entry.n.1.Z3JlZXQ.cA", entry)
		require.Equal(f, "elsewhere", get())
		require.Equal(f, 2, dials)
		require.Equal(f, []string{"n/p"}, names(reg))
	})
}

func TestSource_FollowsANameThatChanges(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		reg := f.registry()
		f.source(reg, federation.SourceOptions{Name: func(e federation.Entry) string { return e.Address }})
		f.lease("1", federation.Serving)
		after(0)
		require.Equal(f, []string{"there"}, names(reg))
		f.write("entry.n.1.Z3JlZXQ.cA", federation.Entry{
			Node: "n", Incarnation: "1", Kind: "test", Address: "elsewhere", Definition: registry.Definition{Service: "greet", Name: "p"},
		})
		require.Equal(f, []string{"elsewhere"}, names(reg))
	})
}

func TestSource_SurvivesFunctionsThatPanic(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		reg := f.registry()
		source, _ := f.source(reg, federation.SourceOptions{Accept: func(federation.Entry) error { panic("boom") }})
		f.lease("1", federation.Serving)
		after(0)
		require.Contains(f, source.Explain("n", "greet", "p").Reason, "boom")
	})
}

func TestSource_BoundsTheRecords(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		reg := f.registry()
		source, _ := f.source(reg, federation.SourceOptions{MaxEntries: 1})
		after(0)
		f.lease("1", federation.Serving)
		f.write("entry.n.1.Z3JlZXQ.cQ", federation.Entry{})
		require.Equal(f, []string{"n/p"}, names(reg))
		require.Equal(f, 1, source.Fleet().Beyond)
		f.write("lease."+strings.Repeat("x", 100), federation.Lease{})
		f.write("entry.x", federation.Lease{})
		require.Len(f, source.Fleet().Refused, 2)
	})
}

// listing is a listing that tells what it is given.
type listing chan func(tell func(federation.List)) error

func (listing) String() string { return "listing" }

func (l listing) Follow(ctx context.Context, tell func(federation.List)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case next := <-l:
			if err := next(tell); err != nil {
				return err
			}
		}
	}
}

func TestSource_KeepsTheLastListOfAListing(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		reg := f.registry()
		l := make(listing)
		source, err := federation.NewSource(federation.SourceOptions{
			Listings: []federation.Listing{l}, KeepListed: time.Minute, Bindings: []federation.Binding{federation.Dial(greets, "test", dial)},
		})
		require.NoError(f, err)
		f.runs(func(ctx context.Context) error { return source.Run(ctx, reg) }, context.Canceled)
		tells := func(of ...string) func(tell func(federation.List)) error {
			list := federation.List{Node: "peer"}
			for _, name := range of {
				list.Entries = append(list.Entries, federation.Entry{Kind: "test", Definition: registry.Definition{Service: "greet", Name: name}})
			}
			return func(tell func(federation.List)) error { tell(list); return nil }
		}
		l <- tells("a", "b", "bell\a")
		after(0)
		require.Equal(f, []string{"peer/a", "peer/b"}, names(reg))
		require.Contains(f, source.Explain("peer", "greet", "bell ").Reason+source.Explain("peer", "greet", "bell\a").Reason, "control characters")
		l <- tells("b")
		after(0)
		require.Equal(f, []string{"peer/b"}, names(reg))
		l <- func(func(federation.List)) error { return errors.New("down") }
		after(time.Second)
		require.Equal(f, []string{"peer/b"}, names(reg))
		require.Equal(f, federation.NodeSuspect, stateOf(source, "peer").State)
		require.Equal(f, "down", stateOf(source, "peer").Reason)
		l <- tells("c")
		after(0)
		require.Equal(f, []string{"peer/c"}, names(reg))
		l <- func(func(federation.List)) error { panic("boom") }
		after(2 * time.Minute)
		require.Empty(f, names(reg))
		require.Equal(f, federation.NodeEvicted, stateOf(source, "peer").State)
		l <- tells("c")
		after(0)
		require.Equal(f, []string{"peer/c"}, names(reg))
		l <- func(tell func(federation.List)) error { tell(federation.List{Node: "peer", Leaving: true}); return nil }
		after(0)
		require.Empty(f, names(reg))
	})
}

func TestNewSource_RefusesBadOptions(t *testing.T) {
	t.Parallel()
	good := federation.SourceOptions{Store: federationtest.NewMemory()}
	for want, change := range map[string]func(*federation.SourceOptions){
		"has neither a Store nor Listings": func(o *federation.SourceOptions) { o.Store = nil },
		"MaxEntries is -1: want 0":         func(o *federation.SourceOptions) { o.MaxEntries = -1 },
		"KeepListed is -1ns: want 0":       func(o *federation.SourceOptions) { o.KeepListed = -1 },
		`SourceOptions.Node is "a b"`:      func(o *federation.SourceOptions) { o.Node = "a b" },
		"Bindings[0] has no function": func(o *federation.SourceOptions) {
			o.Bindings = []federation.Binding{federation.Dial[greet](greets, "test", nil)}
		},
		`Bindings[0] has the kind ""`: func(o *federation.SourceOptions) {
			o.Bindings = []federation.Binding{federation.Dial(greets, "", dial)}
		},
		`Bindings[1] repeats the service "greet" and the kind "x"`: func(o *federation.SourceOptions) {
			o.Bindings = []federation.Binding{federation.Dial(greets, "x", dial), federation.Dial(greets, "x", dial)}
		},
	} {
		options := good
		change(&options)
		_, err := federation.NewSource(options)
		require.ErrorContains(t, err, want)
		require.ErrorIs(t, err, registry.ErrInvalid)
	}
	source, err := federation.NewSource(good)
	require.NoError(t, err)
	require.ErrorIs(t, source.Run(t.Context(), nil), registry.ErrInvalid)
	require.Empty(t, source.Suspects())
}

func TestSource_TellsServicesWithProvidersOfOneNameApart(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		others := registry.NewService[greet]("other")
		near, far := f.registry(), f.registry()
		source, _ := f.source(near, federation.SourceOptions{Bindings: []federation.Binding{
			federation.Dial(greets, "test", dial), federation.Dial(others, "test", dial),
		}})
		f.announcer(far, "far", nil)
		f.add(far, "p")
		other, err := others.Register(f.Context(), far, registry.Provider[greet]{Name: "p", Instance: func() string { return "other" }})
		require.NoError(f, err)
		after(0)
		require.Equal(f, []string{"far/p", "far/p"}, names(near))
		require.NoError(f, other.Unregister(f.Context()))
		after(0)
		require.Equal(f, []string{"far/p"}, names(near))
		require.True(f, source.Explain("far", "greet", "p").Visible)
		require.False(f, source.Explain("far", "other", "p").Visible)
	})
}
