package federation_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/federation/federationtest"
)

// member is a process of the model.
type member struct {
	node    string
	reg     *registry.Registry
	source  *federation.Source
	sources *federationtest.Link
	writes  *federationtest.Link
	offers  []string
	added   int
}

// Whatever happens to the store and the connections, each process sees in the end what all offer, and the node that
// was never cut off has lost no provider at any of them meanwhile.
func TestFleet_EndsInWhatIsTrueWhateverHappens(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			inFleet(t, func(f *fleet) { randomFleet(f, rand.New(rand.NewPCG(seed, 21))) })
		})
	}
}

func randomFleet(f *fleet, random *rand.Rand) {
	var members []*member
	for i := range 4 {
		m := &member{node: fmt.Sprintf("n%d", i), reg: f.registry()}
		m.source, m.sources = f.source(m.reg, federation.SourceOptions{Node: m.node})
		_, m.writes, _ = f.announcer(m.reg, m.node, m.source)
		members = append(members, m)
	}
	steady := members[0]
	f.add(steady.reg, "steady")
	steady.offers = []string{"steady"}
	after(ttl)
	var lost []*registry.Subscription
	for _, m := range members[1:] {
		lost = append(lost, m.reg.Subscribe(0, event.Filter{Kinds: []event.Kind{event.Draining}, Providers: []string{"n0/steady"}}))
	}
	for range 60 {
		happens(f, random, members[1:][random.IntN(3)])
		after(ttl * time.Duration([]int{0, 1, 10}[random.IntN(3)]) / 10)
	}
	f.memory.Start(false)
	for _, m := range members {
		m.sources.Mend()
		m.writes.Mend()
	}
	after(10 * ttl)
	for _, m := range members {
		var want []string
		for _, other := range members {
			for _, name := range other.offers {
				if other != m {
					name = other.node + "/" + name
				}
				want = append(want, name)
			}
		}
		slices.Sort(want)
		seen := names(m.reg)
		slices.Sort(seen)
		require.Equal(f, want, seen, m.node)
	}
	for _, s := range lost {
		s.Close()
		for e := range s.All(f.Context()) {
			require.Fail(f, "a provider of a steady node was lost", e.Reason)
		}
	}
}

// happens makes something happen to a process, or to the store.
func happens(f *fleet, random *rand.Rand, m *member) {
	switch random.IntN(12) {
	case 0, 1, 2:
		m.added++
		name := fmt.Sprintf("p%d", m.added)
		f.add(m.reg, name)
		m.offers = append(m.offers, name)
	case 3, 4:
		if len(m.offers) > 0 {
			i := random.IntN(len(m.offers))
			registration, _ := m.reg.Provider("greet", m.offers[i])
			require.NoError(f, registration.Unregister(f.Context()))
			m.offers = slices.Delete(m.offers, i, i+1)
		}
	case 5:
		m.sources.Cut(random.IntN(2) == 0)
	case 6:
		m.writes.Cut(random.IntN(2) == 0)
	case 7, 8:
		m.sources.Mend()
		m.writes.Mend()
	case 9:
		f.memory.Stop()
		after(ttl / 4)
		f.memory.Start(random.IntN(2) == 0)
	case 10:
		f.memory.Stop()
		after(2 * ttl)
		f.memory.Start(random.IntN(2) == 0)
	case 11:
		backup := f.memory.Save()
		after(ttl)
		f.memory.Stop()
		f.memory.Restore(backup)
		f.memory.Start(false)
	}
}

func TestFleet_ShowsWhatEachNodeOffersAndWhichNodesSuspectIt(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		near, far := f.registry(), f.registry()
		nearSource, _ := f.source(near, federation.SourceOptions{Node: "near"})
		farSource, _ := f.source(far, federation.SourceOptions{Node: "far"})
		f.announcer(near, "near", nearSource)
		f.announcer(far, "far", farSource)
		f.add(near, "p")
		f.lease("1", federation.Serving)
		after(ttl + ttl/3)
		require.Equal(f, []string{"n"}, nearSource.Suspects())
		n := stateOf(farSource, "n")
		require.Equal(f, federation.NodeSuspect, n.State)
		require.Equal(f, "it has not renewed its lease", n.Reason)
		require.Equal(f, []string{"far", "near"}, n.SuspectedBy)
		offers := stateOf(farSource, "near").Offers
		require.Equal(f, []federation.Offered{{
			Node: "near", Name: "p", Service: "greet", Kind: "test", Address: "near:p", Visible: true, As: "near/p",
		}}, offers)
		registration, _ := far.Provider("greet", "near/p")
		require.Equal(f, "near", registration.Info().Metadata[federation.MetadataNode])
		require.True(f, strings.HasPrefix(farSource.Fleet().Store, "memory"))
	})
}
