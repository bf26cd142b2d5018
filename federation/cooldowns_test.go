package federation_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/federation/federationtest"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// sharing begins a process that shares cooldowns, with one provider of the domain "key".
func (f *fleet) sharing(node string) (*registry.Registration, *federationtest.Link) {
	f.Helper()
	reg := f.registry()
	link := federationtest.NewLink(f.memory)
	cooldowns, err := federation.NewCooldowns(federation.CooldownOptions{Store: link, Node: node})
	require.NoError(f, err)
	registration, err := greets.Register(f.Context(), reg, registry.Provider[greet]{
		Name: "p", Domain: "key", Instance: func() string { return node },
	})
	require.NoError(f, err)
	f.runs(func(ctx context.Context) error { return cooldowns.Run(ctx, reg) }, context.Canceled)
	after(0)
	return registration, link
}

func cool(f *fleet, p *registry.Registration, class verdict.Class, d time.Duration) {
	f.Helper()
	require.NoError(f, p.CoolDown(status.Cooldown{
		Until: time.Now().Add(d), Class: class, Scope: verdict.ScopeDomain,
	}, errors.New("429")))
	after(0)
}

func cools(p *registry.Registration) time.Duration { return time.Until(p.Info().Cooldown.Until) }

func TestCooldowns_AreThoseOfAllNodesAndEndEverywhere(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		a, _ := f.sharing("a")
		b, _ := f.sharing("b")
		cool(f, a, verdict.ClassRateLimited, time.Minute)
		require.Equal(f, cools(a).Round(time.Second), cools(b).Round(time.Second))
		require.True(f, b.Info().Cooldown.Until.After(time.Now()))
		late, _ := f.sharing("late")
		require.InDelta(f, time.Minute, cools(late), float64(10*time.Second))
		after(2 * time.Minute)
		for _, p := range []*registry.Registration{a, b, late} {
			require.True(f, p.Info().Eligible)
		}
		require.Empty(f, f.keys(), "the record is deleted")
	})
}

func TestCooldowns_ComeBackEverywhereWhenTheyAreReset(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		a, _ := f.sharing("a")
		b, _ := f.sharing("b")
		for _, by := range []*registry.Registration{a, b} {
			cool(f, a, verdict.ClassFatal, time.Hour)
			require.False(f, a.Info().Eligible)
			require.False(f, b.Info().Eligible)
			require.NoError(f, by.Reset())
			after(0)
			require.True(f, a.Info().Eligible)
			require.True(f, b.Info().Eligible)
		}
	})
}

func TestCooldowns_GoOnAloneWithoutTheStore(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		a, _ := f.sharing("a")
		b, _ := f.sharing("b")
		cool(f, a, verdict.ClassRateLimited, 10*time.Minute)
		f.memory.Stop()
		after(time.Minute)
		require.False(f, a.Info().Eligible)
		require.False(f, b.Info().Eligible)
		f.memory.Start(true)
		after(time.Minute)
		late, _ := f.sharing("late")
		require.False(f, late.Info().Eligible, "what is in force is told again")
		after(20 * time.Minute)
		require.True(f, a.Info().Eligible)
		require.True(f, b.Info().Eligible)
		require.True(f, late.Info().Eligible)
	})
}

func TestCooldowns_AreToldOnceTheStoreTakesThem(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		reg := f.registry()
		store := &faulty{Store: f.memory}
		cooldowns, err := federation.NewCooldowns(federation.CooldownOptions{Store: store, Node: "a"})
		require.NoError(f, err)
		a, err := greets.Register(f.Context(), reg, registry.Provider[greet]{Name: "p", Domain: "key", Instance: func() string { return "a" }})
		require.NoError(f, err)
		f.runs(func(ctx context.Context) error { return cooldowns.Run(ctx, reg) }, context.Canceled)
		b, _ := f.sharing("b")

		store.noPut.Store(true)
		cool(f, a, verdict.ClassRateLimited, time.Hour)
		after(time.Minute)
		require.True(f, b.Info().Eligible)
		store.noPut.Store(false)
		after(10 * time.Second)
		require.InDelta(f, cools(a), cools(b), float64(time.Second))

		require.NoError(f, b.Reset())
		after(0)
		store.noPut.Store(true)
		cool(f, b, verdict.ClassRateLimited, 2*time.Hour)
		require.InDelta(f, cools(b), cools(a), float64(time.Second))
		require.NoError(f, a.Reset())
		after(time.Minute)
		require.True(f, a.Info().Eligible)
		require.False(f, b.Info().Eligible)
		store.noPut.Store(false)
		after(10 * time.Second)
		require.True(f, a.Info().Eligible)
		require.True(f, b.Info().Eligible)

		store.noPut.Store(true)
		cool(f, a, verdict.ClassRateLimited, time.Hour)
		cool(f, b, verdict.ClassRateLimited, time.Minute)
		require.InDelta(f, time.Hour, cools(a), float64(time.Second))
		store.noPut.Store(false)
		after(10 * time.Second)
		require.InDelta(f, cools(a), cools(b), float64(time.Second), "the longer one is everywhere")
	})
}

func TestCooldowns_LeaveOutWhatIsNotOfTheirForm(t *testing.T) {
	t.Parallel()
	inFleet(t, func(f *fleet) {
		a, _ := f.sharing("a")
		for _, record := range []map[string]any{
			{"node": "x", "domain": "other", "class": "fatal", "left_ms": 1000, "until": time.Now().Add(time.Hour)},
			{"node": "x y", "domain": "key", "class": "fatal", "left_ms": 1000, "until": time.Now().Add(time.Hour)},
			{"node": "x", "domain": "key", "class": "no class", "left_ms": 1000, "until": time.Now().Add(time.Hour)},
			{"node": "x", "domain": "key", "class": "fatal", "left_ms": -5, "until": time.Now().Add(time.Hour)},
			{"node": "x", "domain": "key", "class": "fatal", "left_ms": 1000, "until": time.Now().Add(-time.Hour)},
		} {
			f.write("cooldown.a2V5", record)
			require.True(f, a.Info().Eligible, "%v", record)
		}
		f.write("cooldown.a2V5", map[string]any{
			"node": "x", "domain": "key", "class": "rate limited", "left_ms": int64(1) << 60, "until": time.Now().Add(1000 * time.Hour),
		})
		require.False(f, a.Info().Eligible)
		require.LessOrEqual(f, cools(a), 27*time.Hour)
	})
}

func TestNewCooldowns_RefusesBadOptions(t *testing.T) {
	t.Parallel()
	_, err := federation.NewCooldowns(federation.CooldownOptions{Node: "n"})
	require.ErrorIs(t, err, registry.ErrInvalid)
	_, err = federation.NewCooldowns(federation.CooldownOptions{Store: federationtest.NewMemory(), Node: "a.b"})
	require.ErrorIs(t, err, registry.ErrInvalid)
	c, err := federation.NewCooldowns(federation.CooldownOptions{Store: federationtest.NewMemory(), Node: "n"})
	require.NoError(t, err)
	require.ErrorIs(t, c.Run(t.Context(), nil), registry.ErrInvalid)
}
