package registrynats_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/nats"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/internal/testkit/hosts"
)

const (
	clientPort = 4222
	routePort  = 6222
	// pingEvery is short, so that connections are given up before the end of a cut: what waits for TCP may be back too late for the others.
	pingEvery = 2 * time.Second
	// siteTTL is longer than that of others, as servers have to elect a leader before a lease can be renewed.
	siteTTL = 8 * time.Second
	// nodeReplicas begins what says in a node how many servers keep its bucket.
	nodeReplicas = "replicas="
)

// connectNode makes the parts of a node over the servers that it is told of.
func connectNode(_ context.Context, node hosts.Node, reg *registry.Registry) (parts hosts.Parts, err error) {
	replicas := 1
	urls := slices.DeleteFunc(node.At, func(at string) bool {
		number, ok := strings.CutPrefix(at, nodeReplicas)
		if ok {
			replicas, err = strconv.Atoi(number)
		}
		return ok
	})
	if err != nil {
		return parts, err
	}
	options := append(registrynats.Options(), nats.PingInterval(pingEvery), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	nc, err := nats.Connect(strings.Join(urls, ","), options...)
	if err != nil {
		return parts, err
	}
	store, err := registrynats.NewStore(nc, registrynats.StoreOptions{Replicas: replicas})
	if err != nil {
		return parts, err
	}
	calls, err := registrynats.NewServer(nc, reg, registrynats.ServerOptions{Node: node.Name})
	if err != nil {
		return parts, err
	}
	err = registrynats.Serve(calls, hosts.Greets, "greet", func(ctx context.Context, g hosts.Greet, _ struct{}) (string, error) { return g(ctx) })
	if err != nil {
		return parts, err
	}
	js, err := jetstream.New(nc)
	return hosts.Parts{
		Store: store, Kind: registrynats.Kind, Offer: calls.Offer,
		Dial: func(_ context.Context, e federation.Entry) (hosts.Greet, error) {
			call := registrynats.NewStub[struct{}, string](nc, e, "greet")
			return func(ctx context.Context) (string, error) { return call(ctx, struct{}{}) }, nil
		},
		Ask: func(ctx context.Context, _, bucket string) (any, error) { return leaderOf(ctx, js, bucket), nil },
	}, err
}

// leaderOf returns the name of the server that leads the bucket, or "" while there is none.
func leaderOf(ctx context.Context, js jetstream.JetStream, bucket string) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	stream, err := js.Stream(ctx, "KV_"+bucket)
	if err != nil || stream.CachedInfo().Cluster == nil {
		return ""
	}
	return stream.CachedInfo().Cluster.Leader
}

// serveOn starts a server on a host, and returns where its clients find it.
func serveOn(tb testing.TB, h *hosts.Host, r role) []string {
	tb.Helper()
	r.What, r.Host, r.Port, r.Routed, r.Dir = "server", h.Address, clientPort, routePort, tb.TempDir()
	text, err := json.Marshal(r)
	require.NoError(tb, err)
	h.Start(roleVariable, string(text))
	return []string{fmt.Sprintf("nats://%s:%d", h.Address, clientPort)}
}

func TestStore_EvictsNothingThatLivesWhileHostsAreCutOff(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	hosts.TestCuts(t, func(h *hosts.Host) []string { return serveOn(t, h, role{}) }, true)
}

// site is a host with a server, and with nodes that know this server alone.
type site struct {
	host  *hosts.Host
	at    []string
	nodes []*hosts.Member
}

func beginSites(t *testing.T) (sites []*site) {
	t.Helper()
	n := hosts.NewNetwork(t)
	var routes []string
	for range members {
		s := &site{host: n.Host(hosts.Link{})}
		sites = append(sites, s)
		routes = append(routes, fmt.Sprintf("nats://%s:%d", s.host.Address, routePort))
	}
	for i, s := range sites {
		s.at = serveOn(t, s.host, role{Node: siteName(i), Routes: strings.Join(routes, ",")})
	}
	for i, s := range sites {
		for _, name := range []string{"a", "b"} {
			s.nodes = append(s.nodes, s.host.Join(hosts.Node{
				Name: siteName(i) + name, Providers: []string{"one", "two"}, TTL: siteTTL, At: append(s.at, nodeReplicas+strconv.Itoa(members)),
			}))
		}
	}
	return sites
}

func siteName(i int) string { return "site" + strconv.Itoa(i) }

func nodesOf(sites ...*site) (nodes []*hosts.Member) {
	for _, s := range sites {
		nodes = append(nodes, s.nodes...)
	}
	return nodes
}

// leading returns the site whose server leads the bucket, and the others.
func leading(t *testing.T, sites []*site) (leader *site, others []*site) {
	t.Helper()
	hosts.Eventually(t, "the bucket has a leader", func() bool {
		var name string
		sites[0].nodes[0].Ask("leader", "registry", &name)
		others = nil
		for i, s := range sites {
			if siteName(i) == name {
				leader = s
			} else {
				others = append(others, s)
			}
		}
		return len(others) == members-1
	})
	return leader, others
}

func TestStore_EvictsNothingThatLivesWhileAClusterIsSplit(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a minute and more")
	}
	sites := beginSites(t)
	all := nodesOf(sites...)
	t.Logf("all see all %v after the start", hosts.Whole(t, all...).Round(time.Millisecond))

	// The leader does not know for ten seconds and more that the others have a new one.
	small, large := leading(t, sites)
	majority := nodesOf(large...)
	var kept []func()
	for _, m := range small.nodes {
		kept = append(kept, m.Kept(all...))
	}
	for _, m := range majority {
		kept = append(kept, m.Kept(majority...))
	}
	begun := time.Now()
	small.host.Cut()
	small.nodes[0].Answers(small.nodes[1].Node.Name + "/one")
	small.nodes[0].Fails(majority[0].Node.Name + "/one")
	majority[0].Fails(small.nodes[0].Node.Name + "/one")
	majority[0].Answers(majority[len(majority)-1].Node.Name + "/one")
	for _, m := range majority {
		m.Sees(small.nodes[0], federation.NodeEvicted)
		m.Sees(small.nodes[1], federation.NodeEvicted)
	}
	t.Logf("the majority has no ghosts %v after the cut", time.Since(begun).Round(time.Millisecond))
	majority[0].Add("three")
	hosts.Pass(time.Until(begun.Add(5 * siteTTL / 2)))
	for _, check := range kept {
		check()
	}
	small.host.Mend()
	t.Logf("all see all %v after a cut of %v", hosts.Whole(t, all...).Round(time.Millisecond), 5*siteTTL/2)
	for _, check := range kept {
		check()
	}

	// Each server is alone, so that none has a majority.
	kept = nil
	for _, m := range all {
		kept = append(kept, m.Kept(all...))
	}
	const down = 10 * time.Second
	begun = time.Now()
	for _, s := range sites[1:] {
		s.host.Cut()
	}
	sites[0].nodes[0].Answers(sites[0].nodes[1].Node.Name + "/one")
	sites[0].nodes[0].Fails(sites[1].nodes[0].Node.Name + "/one")
	hosts.Pass(time.Until(begun.Add(down)))
	for _, s := range sites[1:] {
		s.host.Mend()
	}
	all[0].Add("four")
	t.Logf("all see all %v after %v without a quorum", hosts.Whole(t, all...).Round(time.Millisecond), down)
	hosts.Pass(3 * siteTTL / 2)
	for _, check := range kept {
		check()
	}
	all[0].Answers(all[len(all)-1].Node.Name + "/one")
}
