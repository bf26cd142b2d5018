package registrynats_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/contrib/nats"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/federation/federationtest"
)

const members = 3

// cluster is a JetStream cluster in this process, whose servers can be stopped and started again.
type cluster struct {
	servers [members]*engine
	urls    string
}

func beginCluster(tb testing.TB) *cluster {
	tb.Helper()
	c := &cluster{}
	ports := freePorts(tb, 2*members)
	var routes, urls []string
	for i := range members {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[members+i]))
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
	}
	c.urls = strings.Join(urls, ",")
	for i := range members {
		c.servers[i] = &engine{options: server.Options{
			ServerName: "server-" + strconv.Itoa(i), Host: "127.0.0.1", Port: ports[i], JetStream: true, StoreDir: tb.TempDir(), NoLog: true, NoSigs: true,
			Cluster: server.ClusterOpts{Name: "cluster", Host: "127.0.0.1", Port: ports[members+i]},
			Routes:  server.RoutesFromStr(strings.Join(routes, ",")),
		}}
		c.servers[i].start(tb)
		tb.Cleanup(c.servers[i].stop)
	}
	c.whole(tb)
	return c
}

// freePorts returns ports that were free a moment ago: routes need them before their servers are there.
func freePorts(tb testing.TB, n int) (ports []int) {
	tb.Helper()
	for range n {
		var config net.ListenConfig
		l, err := config.Listen(tb.Context(), "tcp", "127.0.0.1:0")
		require.NoError(tb, err)
		defer l.Close() //nolint:errcheck // of no consequence
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// whole waits until the cluster has a leader, and each server has caught up.
func (c *cluster) whole(tb testing.TB) {
	tb.Helper()
	require.Eventually(tb, func() bool {
		led := false
		for _, e := range c.servers {
			if !e.server.JetStreamIsCurrent() {
				return false
			}
			led = led || e.server.JetStreamIsLeader()
		}
		return led
	}, 2*time.Minute, 10*time.Millisecond, "the cluster has no leader")
}

// leader returns the number of the server that leads the bucket.
func (c *cluster) leader(tb testing.TB, bucket string) (leader int) {
	tb.Helper()
	require.Eventually(tb, func() bool {
		for i, e := range c.servers {
			if e.server.JetStreamIsStreamLeader("$G", "KV_"+bucket) {
				leader = i
				return true
			}
		}
		return false
	}, 2*time.Minute, 10*time.Millisecond, "the bucket has no leader")
	return leader
}

// without runs for the time without these servers.
func (c *cluster) without(tb testing.TB, down time.Duration, which ...int) {
	tb.Helper()
	for _, i := range which {
		c.servers[i].stop()
	}
	timer := time.NewTimer(down)
	defer timer.Stop()
	<-timer.C
	for _, i := range which {
		c.servers[i].start(tb)
	}
	c.whole(tb)
}

// It is not parallel: three servers with what uses them are load enough.
func TestStore_PassesTheSuiteInACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes minutes")
	}
	c := beginCluster(t)
	federationtest.TestStore(t, federationtest.StoreSuite{
		Open: func(tb testing.TB, name string) federation.Store {
			tb.Helper()
			store, err := registrynats.NewStore(connect(tb, c.urls), registrynats.StoreOptions{Bucket: name, Replicas: members})
			require.NoError(tb, err)
			return store
		},
		Restart: func(tb testing.TB, down time.Duration, wiped bool) {
			tb.Helper()
			for _, e := range c.servers {
				e.stop()
			}
			if wiped {
				for _, e := range c.servers {
					require.NoError(tb, os.RemoveAll(e.options.StoreDir))
				}
			}
			c.without(tb, down, 0, 1, 2)
		},
		Outages: []federationtest.Outage{
			{What: "the end of the leader removes nothing", Make: func(tb testing.TB, name string, down time.Duration) {
				tb.Helper()
				c.without(tb, down, c.leader(tb, name))
			}},
			{What: "the loss of the quorum removes nothing", Make: func(tb testing.TB, name string, down time.Duration) {
				tb.Helper()
				leader := c.leader(tb, name)
				c.without(tb, down, leader, (leader+1)%members)
			}},
		},
		TTL: 2 * time.Second, Within: 3 * time.Minute, Entries: 300,
	})
}

func TestStore_KeepsTheReplicasOfABucket(t *testing.T) {
	t.Parallel()
	c := beginCluster(t)
	nc := connect(t, c.urls)
	store, err := registrynats.NewStore(nc, registrynats.StoreOptions{Replicas: members})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, store.Put(ctx, "entry.a.1.x", []byte("1")))
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	stream, err := js.Stream(ctx, "KV_registry")
	require.NoError(t, err)
	require.Equal(t, members, stream.CachedInfo().Config.Replicas)
}

func TestStore_TakesNoAnswerOfALeaderThatTheOthersDoNotFollow(t *testing.T) {
	t.Parallel()
	c := beginCluster(t)
	nc := connect(t, c.urls)
	store, err := registrynats.NewStore(nc, registrynats.StoreOptions{Replicas: members})
	require.NoError(t, err)
	require.NoError(t, store.Put(t.Context(), "lease.a", []byte("1")))
	leader := c.leader(t, "registry")
	_, err = store.Get(t.Context(), "lease.a")
	require.NoError(t, err)
	for i := range members {
		if i != leader {
			c.servers[i].stop()
		}
	}
	require.Eventually(t, func() bool { // before the leader itself finds out
		_, err := store.Get(t.Context(), "lease.a")
		return err != nil && strings.Contains(err.Error(), "has not heard from a majority")
	}, time.Minute, 10*time.Millisecond)
	_, err = store.Get(t.Context(), "lease.b")
	require.NotErrorIs(t, err, federation.ErrMissing)
}
