package federation_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/federation/federationtest"
)

// opener is a process that shares forced openings, with a provider of its own and those of others.
type opener struct {
	reg  *registry.Registry
	p    *registry.Registration
	link *federationtest.Link
}

func (f *fleet) opener(node, domain string, openings bool) *opener {
	f.Helper()
	o := &opener{reg: f.registry(), link: federationtest.NewLink(f.memory)}
	cooldowns, err := federation.NewCooldowns(federation.CooldownOptions{Store: o.link, Node: node, Openings: openings})
	require.NoError(f, err)
	o.p, err = greets.Register(f.Context(), o.reg, registry.Provider[greet]{
		Name: "p", Domain: domain, Instance: func() string { return node },
	})
	require.NoError(f, err)
	source, _ := f.source(o.reg, federation.SourceOptions{Node: node})
	f.announcer(o.reg, node, source)
	f.runs(func(ctx context.Context) error { return cooldowns.Run(ctx, o.reg) }, context.Canceled)
	after(0)
	return o
}

// of returns the provider of another node.
func (o *opener) of(f *fleet, node string) *registry.Registration {
	f.Helper()
	registration, there := o.reg.Provider("greet", node+"/p")
	require.True(f, there)
	return registration
}

func TestOpenings_AreThoseOfAllNodesAndEndEverywhere(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		a, b, c := f.opener("a", "", true), f.opener("b", "", true), f.opener("c", "", true)
		same := []*registry.Registration{a.p, b.of(f, "a"), c.of(f, "a")}
		for i, by := range same {
			require.NoError(f, by.ForceOpen(time.Hour, "maintenance"))
			after(0)
			for _, p := range same {
				require.True(f, p.Breaker().Forced)
				require.InDelta(f, time.Hour, p.Breaker().RetryIn, float64(2*time.Second))
				require.Contains(f, p.Breaker().Reason, "maintenance")
			}
			for _, other := range []*registry.Registration{b.p, c.p, a.of(f, "b"), b.of(f, "c")} {
				require.False(f, other.Breaker().Forced, "they are others")
			}
			require.NoError(f, same[(i+1)%3].Reset(), "which another node does")
			after(0)
			for _, p := range same {
				require.False(f, p.Breaker().Forced)
				require.True(f, p.Info().Eligible)
			}
		}
		require.NoError(f, b.of(f, "a").ForceOpen(time.Minute, "for a minute"))
		after(2 * time.Minute)
		for _, p := range same {
			require.False(f, p.Breaker().Forced)
		}
	})
}

func TestOpenings_CoverProvidersOfOneNameAndDomain(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		a, b := f.opener("a", "key", true), f.opener("b", "key", true)
		other := f.opener("c", "another", true)
		require.NoError(f, a.p.ForceOpen(time.Hour, "the account is closed"))
		after(0)
		require.True(f, b.p.Breaker().Forced)
		require.False(f, other.p.Breaker().Forced)
		late := f.opener("late", "key", true)
		require.True(f, late.p.Breaker().Forced)
		require.NoError(f, b.p.Reset())
		after(0)
		require.False(f, a.p.Breaker().Forced)
		require.False(f, late.p.Breaker().Forced)
		require.False(f, b.of(f, "a").Breaker().Forced)
	})
}

func TestOpenings_AreNotSharedWithoutTheOption(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		a, b, deaf := f.opener("a", "key", true), f.opener("b", "key", true), f.opener("deaf", "key", false)
		require.NoError(f, deaf.p.ForceOpen(time.Hour, "here alone"))
		after(0)
		require.False(f, a.p.Breaker().Forced)
		require.NoError(f, deaf.p.Reset())
		require.NoError(f, a.p.ForceOpen(time.Hour, "of those that share"))
		after(0)
		require.True(f, b.p.Breaker().Forced)
		require.False(f, deaf.p.Breaker().Forced)
	})
}

func TestOpenings_GoOnAloneWithoutTheStore(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		a, b := f.opener("a", "key", true), f.opener("b", "key", true)
		require.NoError(f, a.p.ForceOpen(time.Hour, "told before"))
		after(0)
		f.memory.Stop()
		after(time.Minute)
		require.True(f, a.p.Breaker().Forced)
		require.True(f, b.p.Breaker().Forced)
		require.NoError(f, b.p.Reset(), "which the others cannot know")
		require.NoError(f, b.p.ForceOpen(2*time.Hour, "forced without the store"))
		after(0)
		f.memory.Start(true)
		after(time.Minute)
		late := f.opener("late", "key", true)
		for _, o := range []*opener{a, b, late} {
			require.InDelta(f, 2*time.Hour, o.p.Breaker().RetryIn, float64(5*time.Minute), "what is in force is told when it is back, and the longest counts")
		}
	})
}

func TestOpenings_LeaveOutWhatIsNotOfTheirForm(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		a := f.opener("a", "key", true)
		later := time.Now().Add(time.Hour)
		for _, record := range []map[string]any{
			{"node": "x y", "of": "a", "service": "greet", "name": "p", "left_ms": 100_000, "until": later},
			{"node": "x", "of": "a", "service": "greet", "name": "q", "left_ms": 100_000, "until": later},
			{"node": "x", "of": "a", "service": "greet", "name": "p", "left_ms": -1, "until": later},
			{"node": "x", "of": "a", "service": "greet", "name": "p", "left_ms": 100_000, "until": time.Now().Add(-time.Hour)},
			{"node": "x", "of": "a", "service": "greet", "name": "p", "left_ms": 100_000, "until": later, "why": "a\nb"},
		} {
			f.write("opening.a.Z3JlZXQ.cA", record)
			require.False(f, a.p.Breaker().Forced, "%v", record)
		}
		f.write("opening.a.Z3JlZXQ.cA", map[string]any{"node": "x", "of": "a", "service": "greet", "name": "p", "left_ms": int64(1) << 60, "until": later.Add(1000 * time.Hour)})
		require.True(f, a.p.Breaker().Forced)
		require.LessOrEqual(f, a.p.Breaker().RetryIn, 25*time.Hour)
	})
}
