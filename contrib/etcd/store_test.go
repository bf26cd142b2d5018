package registryetcd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/etcd"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/federation/federationtest"
)

func TestStore_PassesTheSuite(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a minute and more")
	}
	e := &engine{dir: t.TempDir()}
	t.Cleanup(e.kill)
	federationtest.TestStore(t, federationtest.StoreSuite{
		Open: func(tb testing.TB, name string) federation.Store {
			tb.Helper()
			return newStore(tb, e.connect(tb), name+"/", 0)
		},
		Restart: func(tb testing.TB, down time.Duration, wiped bool) {
			tb.Helper()
			e.kill()
			if wiped {
				require.NoError(tb, os.RemoveAll(filepath.Join(e.dir, "data")))
			}
			timer := time.NewTimer(down)
			defer timer.Stop()
			<-timer.C
			require.NoError(tb, e.start())
		},
		TTL: 3 * time.Second, Within: time.Minute, Entries: manyEntries,
	})
}

// recordsOf returns the records below a prefix, by their keys, as etcd has them.
func recordsOf(tb testing.TB, client *clientv3.Client, prefix string) *clientv3.GetResponse {
	tb.Helper()
	answer, err := client.Get(tb.Context(), prefix, clientv3.WithPrefix())
	require.NoError(tb, err)
	return answer
}

// prefixes counts the prefixes of tests, which may run more than once.
var prefixes atomic.Int64

func newPrefix() string { return fmt.Sprintf("test-%d/", prefixes.Add(1)) }

// leaseOf returns the lease of etcd that all records below a prefix are attached to.
func leaseOf(tb testing.TB, client *clientv3.Client, prefix string) clientv3.LeaseID {
	tb.Helper()
	leases := map[int64]bool{}
	var last int64
	for _, kv := range recordsOf(tb, client, prefix).Kvs {
		last = kv.Lease
		leases[last] = true
	}
	require.Len(tb, leases, 1)
	require.NotZero(tb, last)
	return clientv3.LeaseID(last)
}

// watched returns what stands when the watch tells that it has told all, by key.
func watched(tb testing.TB, store federation.Store, prefix string) map[string]federation.Record {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	records := map[string]federation.Record{}
	err := store.Watch(ctx, prefix, func(record federation.Record) {
		if record.Synced {
			cancel()
			return
		}
		records[record.Key] = record
	})
	require.ErrorIs(tb, err, context.Canceled)
	return records
}

func TestStore_HasOneLeaseForTheRecordsOfANode(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	client := shared.connect(t)
	store := newStore(t, client, prefix, 0)
	reg := newRegistry(t, "a", "b", "c")
	announcer := announce(t, store, "n", reg)
	eventually(t, "the node serves", func() bool { return announcer.Announcement().State == federation.AnnouncerServing })
	require.Equal(t, int64(4), recordsOf(t, client, prefix).Count)
	leaseOf(t, client, prefix)
	require.NoError(t, store.Put(t.Context(), "cooldown.x", []byte("1")))
	require.Zero(t, recordsOf(t, client, prefix+"cooldown.").Kvs[0].Lease, "it outlives its process")
}

func TestStore_ALeaseThatIsLostRemovesNothing(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	client := shared.connect(t)
	near, far := newRegistry(t), newRegistry(t, "a", "b")
	announcer := announce(t, newStore(t, client, prefix, 0), "n", far)
	source := follow(t, newStore(t, shared.connect(t), prefix, 0), near)
	eventually(t, "the providers are seen", func() bool { return len(near.Registrations()) == 2 })
	eventually(t, "the node serves", func() bool { return announcer.Announcement().State == federation.AnnouncerServing })
	leaving := near.Subscribe(0, event.Filter{Kinds: []event.Kind{event.Draining}})

	lost := leaseOf(t, client, prefix)
	_, err := client.Revoke(t.Context(), lost)
	require.NoError(t, err)
	eventually(t, "the node is suspected", func() bool { return len(source.Suspects()) == 1 })
	require.Equal(t, "its lease was deleted", source.Fleet().Nodes[0].Reason)
	require.Len(t, near.Registrations(), 2)
	eventually(t, "the records are written again", func() bool {
		return recordsOf(t, client, prefix).Count == 3 && announcer.Announcement().State == federation.AnnouncerServing
	})
	require.NotEqual(t, lost, leaseOf(t, client, prefix))
	eventually(t, "the node is back", func() bool { return source.Fleet().Nodes[0].State == federation.NodePresent })
	require.Equal(t, uint64(1), source.Fleet().Nodes[0].Generation)
	leaving.Close()
	for e := range leaving.All(t.Context()) {
		require.Fail(t, "a provider was removed", e.Provider)
	}
}

func TestStore_ProvidersThatLeaveWhileTheLeaseIsLostAreRemoved(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	client := shared.connect(t)
	near, far := newRegistry(t), newRegistry(t, "a", "b")
	link := federationtest.NewLink(newStore(t, client, prefix, 0))
	announce(t, link, "n", far)
	source := follow(t, newStore(t, client, prefix, 0), near)
	eventually(t, "the providers are seen", func() bool { return len(near.Registrations()) == 2 })
	link.Cut(false)
	_, err := client.Revoke(t.Context(), leaseOf(t, client, prefix))
	require.NoError(t, err)
	eventually(t, "the node is suspected", func() bool { return len(source.Suspects()) == 1 })
	b, there := far.Provider("greet", "b")
	require.True(t, there)
	require.NoError(t, b.Unregister(t.Context()))
	link.Mend()
	eventually(t, "one provider is left", func() bool {
		left := near.Registrations()
		return len(left) == 1 && left[0].Name() == "n/a"
	})
}

// leases counts what becomes of leases.
type leases struct {
	clientv3.Lease

	granted, kept, lost atomic.Int64
}

func (l *leases) Grant(ctx context.Context, ttl int64) (*clientv3.LeaseGrantResponse, error) {
	l.granted.Add(1)
	return l.Lease.Grant(ctx, ttl)
}

func (l *leases) KeepAliveOnce(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseKeepAliveResponse, error) {
	answer, err := l.Lease.KeepAliveOnce(ctx, id)
	switch {
	case err == nil:
		l.kept.Add(1)
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		l.lost.Add(1)
	}
	return answer, err
}

func count(client *clientv3.Client) *leases {
	counted := &leases{Lease: client.Lease}
	client.Lease = counted
	return counted
}

func TestStore_EtcdDeletesWhatAKilledProcessLeavesBehind(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	client := shared.connect(t)
	counted := count(client)
	link := federationtest.NewLink(newStore(t, client, prefix, 2*time.Second))
	announcer := announce(t, link, "n", newRegistry(t, "a"))
	eventually(t, "the lease is kept alive", func() bool { return counted.kept.Load() >= 3 })
	require.Equal(t, 1+counted.lost.Load(), counted.granted.Load())
	eventually(t, "the node serves", func() bool { return announcer.Announcement().State == federation.AnnouncerServing })
	link.Cut(true) // it writes nothing any more, as after kill -9
	eventually(t, "the records are gone", func() bool { return recordsOf(t, client, prefix).Count == 0 })
}

func TestStore_WritesAtOnceShareALease(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	client := shared.connect(t)
	counted := count(client)
	store := newStore(t, client, prefix, 0)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() { assert.NoError(t, store.Put(t.Context(), fmt.Sprintf("entry.n.1.%d", i), []byte("1"))) })
	}
	all.Wait()
	require.Equal(t, int64(1), counted.granted.Load())
	id := leaseOf(t, client, prefix)
	_, err := client.Revoke(t.Context(), id)
	require.NoError(t, err)
	require.NoError(t, store.Put(t.Context(), "entry.n.1.1", []byte("2")), "before the lease is kept alive")
	require.NotEqual(t, id, leaseOf(t, client, prefix))
}

func TestStore_TellsManyRecordsAsTheyWereAtOneMoment(t *testing.T) {
	t.Parallel()
	store := newStore(t, shared.connect(t), newPrefix(), 0)
	const most = 1001
	for i := range most {
		require.NoError(t, store.Put(t.Context(), fmt.Sprintf("entry.n.%04d", i), []byte("1")))
	}
	require.NoError(t, store.Put(t.Context(), "entry.", []byte("1")))
	require.Len(t, watched(t, store, "entry.n."), most)
	require.Len(t, watched(t, store, ""), most+1)
}

func TestStore_TellsTheRecordsOfAPrefixOneByOne(t *testing.T) {
	t.Parallel()
	prefix, client := newPrefix(), shared.connect(t)
	store := newStore(t, client, prefix, 0)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	records := make(chan federation.Record, 100)
	ended := make(chan error, 1)
	go func() { ended <- store.Watch(ctx, "", func(record federation.Record) { records <- record }) }()
	require.True(t, (<-records).Synced)
	keys := []string{"cooldown.x", "entry.a.1.x", "entry.b.1.x", "lease.a", "lease.c"}
	var drops []clientv3.Op
	for _, key := range keys {
		require.NoError(t, store.Put(t.Context(), key, []byte("1")))
		require.Equal(t, key, (<-records).Key)
		drops = append(drops, clientv3.OpDelete(prefix+key))
	}
	_, err := client.Txn(t.Context()).Then(drops...).Commit()
	require.NoError(t, err)
	require.NoError(t, store.Put(t.Context(), "end", nil))
	var dropped []string
	for record := <-records; record.Key != "end"; record = <-records {
		require.True(t, record.Deleted)
		dropped = append(dropped, record.Key)
	}
	require.Equal(t, []string{"cooldown.x", "entry.b.1.x", "lease.a", "lease.c"}, dropped, "node a may write its entry again")
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// compacting has the history compacted before a watch begins, once.
type compacting struct {
	clientv3.Watcher

	client *clientv3.Client
	tb     testing.TB
	begun  atomic.Bool
	done   chan struct{}
}

func (c *compacting) Watch(ctx context.Context, key string, options ...clientv3.OpOption) clientv3.WatchChan {
	if !c.begun.Swap(true) {
		defer close(c.done)
		for range 3 {
			put, err := c.client.Put(ctx, "elsewhere", "")
			if err == nil {
				_, err = c.client.Compact(ctx, put.Header.Revision)
			}
			if err != nil {
				c.tb.Error(err)
			}
		}
	}
	return c.Watcher.Watch(ctx, key, options...)
}

// Not at the same time as others, whose watches it would end.
func TestStore_ReadsAgainWhatWasCompacted(t *testing.T) {
	prefix := newPrefix()
	begin := func() (*registryetcd.Store, <-chan struct{}) {
		client := shared.connect(t)
		watcher := &compacting{Watcher: client.Watcher, client: client, tb: t, done: make(chan struct{})}
		client.Watcher = watcher
		return newStore(t, client, prefix, 0), watcher.done
	}
	store, _ := begin()
	synced := 0
	err := store.Watch(t.Context(), "", func(record federation.Record) {
		if record.Synced {
			synced++
		}
	})
	require.ErrorIs(t, err, rpctypes.ErrCompacted)
	require.Equal(t, 1, synced)

	far, near := newRegistry(t, "a"), newRegistry(t)
	other, done := begin()
	follow(t, other, near)
	<-done // it watches from before what was compacted
	announce(t, store, "n", far)
	eventually(t, "the provider is seen", func() bool { return len(near.Registrations()) == 1 })
}

// proxy is a way to the server that can be cut.
type proxy struct {
	path     string
	listener net.Listener
	all      sync.WaitGroup

	mu    sync.Mutex // guards conns
	conns []net.Conn
}

func newProxy(tb testing.TB) *proxy {
	tb.Helper()
	require.NoError(tb, shared.start())
	p := &proxy{path: filepath.Join(tb.TempDir(), "proxy")}
	var config net.ListenConfig
	listener, err := config.Listen(tb.Context(), "unix", p.path)
	require.NoError(tb, err)
	p.listener = listener
	p.all.Go(p.accept)
	tb.Cleanup(func() {
		_ = listener.Close()
		p.cut()
		p.all.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		var dialer net.Dialer
		out, err := dialer.DialContext(context.Background(), "unix", filepath.Join(shared.dir, "client"))
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
			p.all.Go(func() {
				_, _ = io.Copy(way[0], way[1]) // it ends with one of them
				_ = way[0].Close()
				_ = way[1].Close()
			})
		}
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
}

func TestStore_EndsAWatchWhoseConnectionIsLost(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	store := newStore(t, shared.connect(t, func(c *clientv3.Config) { c.Endpoints = []string{"unix://" + p.path} }), newPrefix(), 0)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 3 {
		err := store.Watch(ctx, "", func(record federation.Record) {
			if record.Synced {
				p.cut()
			}
		})
		require.ErrorContains(t, err, "the connection was lost")
	}
	require.Empty(t, watched(t, store, ""))
}

func TestStore_SaysThatTheClusterCannotBeReached(t *testing.T) {
	t.Parallel()
	client := shared.connect(t, func(c *clientv3.Config) { c.MaxUnaryRetries = 1 })
	store := newStore(t, client, newPrefix(), 0)
	require.NoError(t, store.Probe(t.Context()))
	require.NoError(t, client.Close())
	for what, do := range map[string]func() error{
		"get":    func() error { _, err := store.Get(t.Context(), "lease.a"); return err },
		"put":    func() error { return store.Put(t.Context(), "lease.a", nil) },
		"update": func() error { _, err := store.Update(t.Context(), "lease.a", nil, 1); return err },
		"delete": func() error { return store.Delete(t.Context(), "lease.a", 1) },
		"watch":  func() error { return store.Watch(t.Context(), "", func(federation.Record) {}) },
		"probe":  func() error { return store.Probe(t.Context()) },
	} {
		err := do()
		require.ErrorContains(t, err, "registryetcd: "+what+": ")
		require.NotErrorIs(t, err, federation.ErrMissing)
		require.NotErrorIs(t, err, federation.ErrChanged)
	}
}

func TestStore_NamesARecordThatEtcdRefuses(t *testing.T) {
	t.Parallel()
	store := newStore(t, shared.connect(t), newPrefix(), 0)
	err := store.Put(t.Context(), "entry.n.1.x", []byte(strings.Repeat("x", 1700<<10)))
	require.ErrorIs(t, err, rpctypes.ErrRequestTooLarge)
}

func TestNewStore_RefusesBadOptions(t *testing.T) {
	t.Parallel()
	_, err := registryetcd.NewStore(nil, registryetcd.StoreOptions{})
	require.ErrorIs(t, err, registry.ErrInvalid)
	client := shared.connect(t)
	for want, options := range map[string]registryetcd.StoreOptions{
		`StoreOptions.Prefix is "a b"`: {Prefix: "a b"},
		`StoreOptions.Prefix is "xxx`:  {Prefix: strings.Repeat("x", 201)},
		"StoreOptions.Lease is 1s":     {Lease: time.Second},
		"StoreOptions.Lease is 2.5s":   {Lease: 2500 * time.Millisecond},
		"StoreOptions.Lease is 25h0m0": {Lease: 25 * time.Hour},
		"StoreOptions.Lease is -1ns":   {Lease: -1},
	} {
		_, err := registryetcd.NewStore(client, options)
		require.ErrorContains(t, err, want)
		require.ErrorIs(t, err, registry.ErrInvalid)
	}
	store, err := registryetcd.NewStore(client, registryetcd.StoreOptions{})
	require.NoError(t, err)
	require.Equal(t, "etcd prefix registry/", store.String())
}
