package hosts

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/federation"
)

// TTL is that of the leases in tests. One and a half of it have to be longer than the time that a connection needs to find out that
// its way is mended: TCP tries again after as long as the cut has lasted, unless the connection is given up before.
const TTL = 6 * time.Second

// backWithin is the time after the end of a cut within which all see all: a connection that is silent is given up within 20 s, and then tried again
// every few seconds.
const backWithin = 30 * time.Second

// TestCuts checks that a store whose server is on a host keeps the promises of federation while hosts are cut off: nodes that cannot renew their
// leases are gone within two TTLs, nothing that lives is evicted, by any node, and all see all soon after the cut. The function
// starts the server, and returns what is [Node.At] for the nodes. Where calls go through the server they have to end, too.
func TestCuts(tb testing.TB, serve func(h *Host) []string, calls bool) {
	tb.Helper()
	n := NewNetwork(tb)
	server := n.Host(Link{})
	at := serve(server)
	join := func(name string, link Link) *Member {
		return n.Host(link).Join(Node{Name: name, Providers: []string{"one", "two", Keyed}, TTL: TTL, At: at})
	}
	c := &cuts{
		tb: tb, server: server, calls: calls,
		steady: join("steady", Link{}), other: join("other", Link{}), short: join("short", Link{}),
		full: join("full", Link{}), mute: join("mute", Link{}), deaf: join("deaf", Link{}),
		slow: join("slow", Link{Delay: 100 * time.Millisecond, Loss: 0.05}),
	}
	c.living = []*Member{c.steady, c.other, c.short, c.slow}
	c.all = append([]*Member{c.full, c.mute, c.deaf}, c.living...)
	tb.Logf("all see all %v after the start", Whole(tb, c.all...).Round(time.Millisecond))
	c.hosts()
	c.store()
}

// cuts is a fleet around one server.
type cuts struct {
	tb     testing.TB
	server *Host
	calls  bool

	steady, other, short, slow *Member // that can renew their leases all the time
	full, mute, deaf           *Member // that are cut off, in both ways or in one
	living, all                []*Member
}

// hosts cuts hosts of nodes off, for longer than their leases, all at once: what one of them knows is not what the others know.
func (c *cuts) hosts() {
	c.tb.Helper()
	var kept []func()
	for _, m := range c.all {
		kept = append(kept, m.Kept(c.living...))
	}
	alone := []func(){c.full.Kept(c.all...), c.deaf.Kept(c.all...)}
	begun := time.Now()
	c.full.Host.Cut()
	c.mute.Host.CutOut()
	c.deaf.Host.CutIn()
	c.short.Host.Cut()
	Pass(time.Second)
	c.short.Host.Mend()
	if c.calls {
		c.steady.Answers("other/one")
		c.slow.Answers("steady/one")
		c.steady.Fails("full/one")
		c.full.Fails("steady/one")
	}
	c.full.Cool()
	c.full.Drop("two")
	c.full.Add("four")
	c.steady.Add("three")
	for _, m := range c.living {
		m.Sees(c.full, federation.NodeEvicted)
		m.Sees(c.mute, federation.NodeEvicted)
	}
	ghosts := time.Since(begun)
	c.tb.Logf("no ghosts %v after the cut, of 2 × TTL = %v", ghosts.Round(time.Millisecond), 2*TTL)
	require.LessOrEqual(c.tb, ghosts, 2*TTL+slack)
	Pass(time.Until(begun.Add(5 * TTL / 2)))
	for _, check := range alone {
		check()
	}
	c.steady.Drop("two")
	for _, m := range []*Member{c.full, c.mute, c.deaf} {
		m.Host.Mend()
	}
	lasted := time.Since(begun)
	back := Whole(c.tb, c.all...)
	c.tb.Logf("all see all %v after the cut, which lasted %v", back.Round(time.Millisecond), lasted.Round(time.Second))
	require.LessOrEqual(c.tb, back, backWithin+slack)
	for _, check := range kept {
		check()
	}
	for _, m := range c.all {
		require.Equal(c.tb, uint64(1), m.State().Announced.Generation, "%s is another incarnation", m.Node.Name)
	}
	c.cool()
}

// cool waits until the domain cools down at all nodes until the same moment.
func (c *cuts) cool() {
	c.tb.Helper()
	end := c.full.State().Cooling
	require.False(c.tb, end.IsZero())
	for _, m := range c.all {
		Eventually(c.tb, "the cooldown is that of "+m.Node.Name, func() bool {
			return m.State().Cooling.Sub(end).Abs() < time.Second
		})
	}
}

// store cuts the server off from all.
func (c *cuts) store() {
	c.tb.Helper()
	var kept []func()
	for _, m := range c.all {
		kept = append(kept, m.Kept(c.all...))
	}
	begun := time.Now()
	c.server.Cut()
	if c.calls {
		c.steady.Fails("other/one")
	}
	c.steady.Add("five")
	Pass(time.Until(begun.Add(2 * TTL)))
	for _, check := range kept {
		check()
	}
	c.server.Mend()
	back := Whole(c.tb, c.all...)
	c.tb.Logf("all see all %v after the server was cut off for %v", back.Round(time.Millisecond), 2*TTL)
	require.LessOrEqual(c.tb, back, backWithin+slack)
	Pass(3 * TTL / 2) // so long a node that is not heard of would stay
	for _, check := range kept {
		check()
	}
	if c.calls {
		c.steady.Answers("other/one")
		c.full.Answers("slow/one")
	}
}
