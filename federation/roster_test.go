package federation_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
)

// The table of the states of a node, row by row.
func TestSource_SeesNodesAsTheTableSays(t *testing.T) {
	t.Parallel()
	serving := func(f *fleet) { f.lease("1", federation.Serving) }
	leaving := func(f *fleet) { f.lease("1", federation.Leaving) }
	joining := func(f *fleet) { f.lease("1", federation.Joining) }
	another := func(f *fleet) { f.lease("2", federation.Joining) }
	deleted := func(f *fleet) { f.delete("lease.n") }
	silent := func(*fleet) { after(ttl) }
	overdue := func(*fleet) { after(ttl / 2) }
	outage := func(f *fleet) {
		f.memory.Stop()
		after(ttl)
		f.memory.Start(false)
		after(ttl / 2)
	}
	for name, test := range map[string]struct {
		events []func(*fleet)
		want   federation.NodeState
		seen   bool
	}{
		"none, serving":              {[]func(*fleet){serving}, federation.NodePresent, true},
		"none, leaving":              {[]func(*fleet){leaving}, federation.NodeDraining, false},
		"none, joining":              {[]func(*fleet){joining}, federation.NodeJoining, false},
		"joining, serving":           {[]func(*fleet){joining, serving}, federation.NodePresent, true},
		"joining, leaving":           {[]func(*fleet){joining, leaving}, federation.NodeDraining, false},
		"joining, deleted":           {[]func(*fleet){joining, deleted}, "", false},
		"joining, not renewed":       {[]func(*fleet){joining, silent}, "", false},
		"present, joining again":     {[]func(*fleet){serving, joining}, federation.NodePresent, true},
		"present, leaving":           {[]func(*fleet){serving, leaving}, federation.NodeDraining, false},
		"present, deleted":           {[]func(*fleet){serving, deleted}, federation.NodeSuspect, true},
		"present, not renewed":       {[]func(*fleet){serving, silent}, federation.NodeSuspect, true},
		"present, another":           {[]func(*fleet){serving, another}, federation.NodeJoining, false},
		"suspect, serving":           {[]func(*fleet){serving, silent, serving}, federation.NodePresent, true},
		"suspect, joining again":     {[]func(*fleet){serving, silent, joining}, federation.NodeSuspect, true},
		"suspect, leaving":           {[]func(*fleet){serving, silent, leaving}, federation.NodeDraining, false},
		"suspect, deleted":           {[]func(*fleet){serving, silent, deleted}, federation.NodeSuspect, true},
		"suspect, not renewed":       {[]func(*fleet){serving, silent, overdue}, federation.NodeEvicted, false},
		"deleted, not renewed":       {[]func(*fleet){serving, deleted, overdue}, federation.NodeEvicted, false},
		"draining, serving":          {[]func(*fleet){leaving, serving}, federation.NodePresent, true},
		"draining, deleted":          {[]func(*fleet){leaving, deleted}, "", false},
		"draining, not renewed":      {[]func(*fleet){leaving, silent}, "", false},
		"evicted, serving":           {[]func(*fleet){serving, silent, overdue, serving}, federation.NodePresent, true},
		"evicted, joining again":     {[]func(*fleet){serving, silent, overdue, joining}, federation.NodeEvicted, false},
		"evicted, leaving":           {[]func(*fleet){serving, silent, overdue, leaving}, federation.NodeDraining, false},
		"evicted, deleted":           {[]func(*fleet){serving, silent, overdue, deleted}, "", false},
		"present, outage":            {[]func(*fleet){serving, outage}, federation.NodePresent, true},
		"suspect, outage":            {[]func(*fleet){serving, silent, outage}, federation.NodeSuspect, true},
		"suspect, outage, silent":    {[]func(*fleet){serving, silent, outage, silent}, federation.NodeEvicted, false},
		"evicted, outage":            {[]func(*fleet){serving, silent, overdue, outage}, federation.NodeEvicted, false},
		"evicted, outage, serving":   {[]func(*fleet){serving, silent, overdue, outage, serving}, federation.NodePresent, true},
		"evicted, silent for longer": {[]func(*fleet){serving, silent, overdue, silent, silent}, federation.NodeEvicted, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inFleet(t, func(f *fleet) {
				reg := f.registry()
				source, _ := f.source(reg, federation.SourceOptions{})
				after(0)
				for _, event := range test.events {
					event(f)
				}
				require.Equal(f, test.want, stateOf(source, "n").State)
				o := source.Explain("n", "greet", "p")
				require.Equal(f, test.seen, o.Visible, o.Reason)
				require.Equal(f, test.seen, o.Reason == "")
				if test.seen {
					require.Equal(f, []string{"n/p"}, names(reg))
				} else {
					require.Empty(f, names(reg))
				}
			})
		})
	}
}

func TestSource_ExplainsEveryAbsence(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		reg := f.registry()
		source, link := f.source(reg, federation.SourceOptions{Node: "self", Accept: func(e federation.Entry) error {
			if e.Incarnation == "unwanted" {
				return errUnwanted
			}
			return nil
		}})
		after(0)
		why := func(node, name string) string { return source.Explain(node, "greet", name).Reason }
		require.Equal(f, "no node of that name is known", why("n", "p"))
		f.write("entry.n.1.Z3JlZXQ.cA", federation.Entry{})
		require.Equal(f, "the node has no lease", why("n", "p"))
		f.lease("1", federation.Joining)
		require.Equal(f, "the node is joining: its records are not complete", why("n", "p"))
		f.lease("1", federation.Serving)
		require.Empty(f, why("n", "p"))
		require.Equal(f, "the node offers no provider of that name", why("n", "q"))

		f.write("lease.n", federation.Lease{Node: "n", Incarnation: "2", Phase: federation.Joining, TTL: ttl})
		require.Equal(f, "the record is of another incarnation than the lease of the node", why("n", "p"))
		f.lease("unwanted", federation.Serving)
		require.Equal(f, "unwanted", why("n", "p"))
		f.lease("3", federation.Leaving)
		require.Equal(f, "the node is leaving", why("n", "p"))
		f.lease("3", federation.Serving)
		registration, there := reg.Provider("greet", "n/p")
		require.True(f, there)
		require.NoError(f, registration.Unregister(f.Context()))
		require.Equal(f, "it was removed here; it comes back when its node offers it otherwise", why("n", "p"))

		f.add(reg, "m/p")
		f.write("entry.m.1.Z3JlZXQ.cA", federation.Entry{
			Node: "m", Incarnation: "1", Kind: "test", Definition: registry.Definition{Service: "greet", Name: "p"},
		})
		f.write("lease.m", federation.Lease{Node: "m", Incarnation: "1", Phase: federation.Serving, TTL: 10 * ttl})
		require.Contains(f, why("m", "p"), `already exists`)
		taken, _ := reg.Provider("greet", "m/p")
		require.NoError(f, taken.Unregister(f.Context()))
		after(0)
		require.Empty(f, why("m", "p"), "a name that becomes free is taken")

		f.write("lease.self", federation.Lease{Node: "self", Incarnation: "1", Phase: federation.Serving, TTL: 10 * ttl})
		require.Equal(f, "the node is this one", why("self", "p"))
		link.Cut(false)
		after(10 * ttl)
		require.Equal(f, "no node of that name is known; the store cannot be reached: context deadline exceeded", why("x", "p"))
		require.False(f, source.Fleet().Reachable)
	})
}

var errUnwanted = errors.New("unwanted")
