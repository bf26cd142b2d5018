package federation_test

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/federation/federationtest"
)

// keys returns the keys of a store, sorted.
func (f *fleet) keys() (keys []string) {
	for key := range f.memory.Save() {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func TestAnnouncer_WritesOneRecordForEachOfferAndRenewsNoneOfThem(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		reg := f.registry()
		f.add(reg, "p")
		announcer, _, end := f.announcer(reg, "n", nil)
		after(0)
		before := f.memory.Save()
		require.Len(f, before, 2)
		after(10*ttl - ttl/5)
		for key, record := range f.memory.Save() {
			if strings.HasPrefix(key, "entry.") {
				require.Equal(f, before[key], record)
			} else {
				require.Equal(f, uint64(24), record.Revision-before[key].Revision, "five renewals in two TTLs")
			}
		}
		state := announcer.Announcement()
		require.Equal(f, federation.AnnouncerServing, state.State)
		require.Equal(f, 1, state.Entries)
		require.Zero(f, state.Pending)
		end()
		require.Empty(f, f.keys())
		require.Equal(f, federation.AnnouncerIdle, announcer.Announcement().State)
	})
}

func TestAnnouncer_DoesNotOfferWhatASourceHasBroughtIn(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		reg := f.registry()
		source, _ := f.source(reg, federation.SourceOptions{Node: "self"})
		announcer, _, _ := f.announcer(reg, "self", source)
		f.lease("1", federation.Serving)
		after(0)
		require.Equal(f, []string{"n/p"}, names(reg))
		require.Zero(f, announcer.Announcement().Entries)
	})
}

func TestAnnouncer_NamesWhatItCannotAnnounce(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		reg := f.registry()
		metadata := map[string]string{}
		for _, key := range []string{"a", "b", "c", "d", "e"} {
			metadata[key] = strings.Repeat("x", 16<<10)
		}
		_, err := greets.Register(f.Context(), reg, registry.Provider[greet]{Name: "large", Instance: func() string { return "" }, Metadata: metadata})
		require.NoError(f, err)
		f.add(reg, "p")
		announcer, _, _ := f.announcer(reg, "n", nil)
		after(0)
		state := announcer.Announcement()
		require.Equal(f, 1, state.Entries)
		require.Contains(f, state.Refused["greet/large"], "want at most 65536")
	})
}

func TestAnnouncer_WaitsForTheEndOfAnEarlierIncarnation(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		f.lease("earlier", federation.Serving)
		reg := f.registry()
		f.add(reg, "q")
		announcer, _, _ := f.announcer(reg, "n", nil)
		after(ttl - time.Millisecond)
		require.Equal(f, federation.AnnouncerClaiming, announcer.Announcement().State)
		after(ttl / 4)
		require.Equal(f, federation.AnnouncerServing, announcer.Announcement().State)
		after(ttl)
		require.Len(f, f.keys(), 2, "the records of the earlier one are deleted")
	})
}

// slowList is a store whose lists of a node's records wait, and whose leases go through a link.
type slowList struct {
	federation.Store

	link *federationtest.Link
	gate chan struct{}
}

func (s *slowList) Watch(ctx context.Context, prefix string, tell func(federation.Record)) error {
	if strings.HasPrefix(prefix, "entry.n.") {
		select {
		case <-s.gate:
		case <-ctx.Done():
		}
	}
	return s.Store.Watch(ctx, prefix, tell)
}

func (s *slowList) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return s.link.Update(ctx, key, value, revision)
}

func TestAnnouncer_DeletesNothingOfTheIncarnationThatHasTakenItsName(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		store := &slowList{f.memory, federationtest.NewLink(f.memory), make(chan struct{})}
		first, err := federation.NewAnnouncer(federation.AnnouncerOptions{
			Store: store, Node: "n", TTL: ttl, Offer: func(registry.Info) (federation.Offer, bool) { return federation.Offer{Kind: "test"}, true },
		})
		require.NoError(f, err)
		near, far := f.registry(), f.registry()
		f.add(near, "p")
		f.add(far, "q")
		f.runs(func(ctx context.Context) error { return first.Run(ctx, near) }, federation.ErrTaken)
		after(0)
		require.Equal(f, federation.AnnouncerServing, first.Announcement().State)
		store.link.Cut(false)
		f.announcer(far, "n", nil)
		after(3 * ttl)
		before := f.keys()
		require.Len(f, before, 2, "the records of the first are deleted")
		close(store.gate) // it lists what is the second's now, as it does not know yet
		after(ttl)
		require.Equal(f, before, f.keys())
		store.link.Mend()
		after(ttl)
		require.Equal(f, before, f.keys())
		require.Equal(f, federation.AnnouncerIdle, first.Announcement().State)
	})
}

func TestAnnouncer_DeletesWhatNodesHaveLeftBehind(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		f.lease("1", federation.Serving)
		f.write("entry.orphan.1.Z3JlZXQ.cA", federation.Entry{})
		reg := f.registry()
		f.announcer(reg, "z", nil)
		_, far, _ := f.announcer(f.registry(), "a", nil)
		after(9 * ttl)
		require.Len(f, f.keys(), 5)
		after(2 * ttl)
		require.Equal(f, []string{"lease.a", "lease.z"}, f.keys())
		far.Cut(true)
		after(9 * ttl)
		require.Equal(f, []string{"lease.a", "lease.z"}, f.keys())
		after(12 * ttl)
		require.Equal(f, []string{"lease.z"}, f.keys())
		far.Mend()
		after(5 * ttl)
		require.Equal(f, []string{"lease.a", "lease.z"}, f.keys(), "it comes back")
	})
}

// counted counts how often the leases of all nodes are read.
type counted struct {
	federation.Store

	lists atomic.Int32
}

func (c *counted) Watch(ctx context.Context, prefix string, tell func(federation.Record)) error {
	if prefix == "lease." {
		c.lists.Add(1)
	}
	return c.Store.Watch(ctx, prefix, tell)
}

func TestAnnouncer_ReadsAllLeasesOnceWhileANodeBeforeItLives(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		f.lease("1", federation.Serving)
		_, before, _ := f.announcer(f.registry(), "a", nil)
		after(ttl)
		store := &counted{Store: f.memory}
		announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{
			Store: store, Node: "z", TTL: ttl, Offer: func(registry.Info) (federation.Offer, bool) { return federation.Offer{}, false },
		})
		require.NoError(f, err)
		reg := f.registry()
		f.runs(func(ctx context.Context) error { return announcer.Run(ctx, reg) }, context.Canceled)
		after(100 * ttl)
		require.Equal(f, []string{"lease.a", "lease.z"}, f.keys(), "the first node sweeps")
		require.Equal(f, int32(1), store.lists.Load())
		before.Cut(true)
		after(9 * ttl)
		require.Equal(f, []string{"lease.a", "lease.z"}, f.keys())
		after(12 * ttl)
		require.Equal(f, []string{"lease.z"}, f.keys(), "it has become the first")
	})
}

func TestAnnouncer_DeletesNothingOfOthersAfterAnOutage(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		reg := f.registry()
		f.announcer(reg, "a", nil)
		f.lease("1", federation.Serving)
		after(ttl)
		f.memory.Stop()
		after(30 * ttl)
		f.memory.Start(false)
		after(2 * ttl)
		require.Contains(f, f.keys(), "lease.n", "it could not renew its lease")
	})
}

func TestAnnouncer_LeavesWhenTheRegistryCloses(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		reg, err := registry.New(registry.Options{})
		require.NoError(f, err)
		f.add(reg, "p")
		announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{
			Store: f.memory, Node: "n", Offer: func(registry.Info) (federation.Offer, bool) { return federation.Offer{Kind: "test"}, true },
		})
		require.NoError(f, err)
		f.runs(func(ctx context.Context) error { return announcer.Run(ctx, reg) }, registry.ErrClosed)
		after(0)
		require.ErrorIs(f, announcer.Run(f.Context(), reg), registry.ErrState)
		require.NoError(f, reg.Close(f.Context()))
		after(ttl)
		require.Empty(f, f.keys())
	})
}

func TestAnnouncer_SaysWhenTheStoreCouldNotBeToldThatItLeaves(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		announcer, err := federation.NewAnnouncer(federation.AnnouncerOptions{
			Store: f.memory, Node: "n", Offer: func(registry.Info) (federation.Offer, bool) { return federation.Offer{}, false },
		})
		require.NoError(f, err)
		ctx, cancel := context.WithCancel(f.Context())
		ended := make(chan error, 1)
		reg := f.registry()
		go func() { ended <- announcer.Run(ctx, reg) }()
		after(0)
		f.memory.Stop()
		cancel()
		require.ErrorContains(f, <-ended, `the store could not be told that node "n" leaves`)
	})
}

func TestNewAnnouncer_RefusesBadOptions(t *testing.T) {
	t.Parallel()
	offer := func(registry.Info) (federation.Offer, bool) { return federation.Offer{}, false }
	good := federation.AnnouncerOptions{Store: federationtest.NewMemory(), Node: "n", Offer: offer}
	for want, change := range map[string]func(*federation.AnnouncerOptions){
		`federation: AnnouncerOptions.Node is "a.b": want a word`:            func(o *federation.AnnouncerOptions) { o.Node = "a.b" },
		`federation: AnnouncerOptions.Node is "": want a word`:               func(o *federation.AnnouncerOptions) { o.Node = "" },
		`needs a Store and an Offer`:                                         func(o *federation.AnnouncerOptions) { o.Offer = nil },
		`needs a Store`:                                                      func(o *federation.AnnouncerOptions) { o.Store = nil },
		`TTL is 1ms: want 0 (20s), or 100ms to 10m0s`:                        func(o *federation.AnnouncerOptions) { o.TTL = time.Millisecond },
		`TTL is 1h0m0s`:                                                      func(o *federation.AnnouncerOptions) { o.TTL = time.Hour },
		`AnnouncerOptions.LeaveWithin is -1ns: want 0 (5s) or more: invalid`: func(o *federation.AnnouncerOptions) { o.LeaveWithin = -1 },
	} {
		options := good
		change(&options)
		_, err := federation.NewAnnouncer(options)
		require.ErrorContains(t, err, want)
		require.ErrorIs(t, err, registry.ErrInvalid)
	}
	announcer, err := federation.NewAnnouncer(good)
	require.NoError(t, err)
	require.ErrorIs(t, announcer.Run(t.Context(), nil), registry.ErrInvalid)
}

// A clock that is set cannot matter to what has no time of it.
func TestLease_HasNoTimeOfAnyClock(t *testing.T) {
	t.Parallel()
	for _, of := range []reflect.Type{reflect.TypeFor[federation.Lease](), reflect.TypeFor[federation.Entry]()} {
		for _, field := range reflect.VisibleFields(of) {
			require.NotEqual(t, reflect.TypeFor[time.Time](), field.Type, field.Name)
		}
	}
	text, err := json.Marshal(federation.Lease{Node: "n", TTL: time.Minute})
	require.NoError(t, err)
	require.Contains(t, string(text), `"ttl":"1m"`)
}

// A process that was suspended for an hour sees all nodes silent at once.
func TestSource_EvictsNothingWhenItHasSleptItself(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		near, far := f.registry(), f.registry()
		f.add(near, "p")
		f.announcer(near, "near", nil)
		source, link := f.source(far, federation.SourceOptions{})
		after(0)
		link.Cut(true)
		after(time.Hour)
		require.Equal(f, []string{"near/p"}, names(far))
		link.Mend()
		after(5 * ttl)
		require.Equal(f, []string{"near/p"}, names(far))
		require.Equal(f, federation.NodePresent, stateOf(source, "near").State)
		synctest.Wait()
	})
}

func TestNodeOf_KnowsTheRecordsOfANode(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"lease.a": "a lease", "entry.a.1.x.y": "a", "entry.a.": "a", "entry.a": "", "lease.": "", "lease.a.b": "", "entry..x": "", "cooldown.a": "", "": "",
	} {
		node, lease := federation.NodeOf(key)
		if lease {
			node += " lease"
		}
		require.Equal(t, want, node, key)
	}
}
