package domain_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/cooldown"
	"github.com/capreg/registry/internal/domain"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The policies that the tests set, one bulkhead smaller than the other.
var (
	small = limit.Policy{Bulkhead: true, MaxConcurrent: 1}
	large = limit.Policy{Bulkhead: true, MaxConcurrent: 2}
)

func TestJoin_MembersOfOneKeyShareADomain(t *testing.T) {
	t.Parallel()
	s := domain.Set[string]{}
	a, b, other := s.Join("key", "a"), s.Join("key", "b"), s.Join("other", "c")
	require.Same(t, a, b)
	require.NotSame(t, a, other)
	require.ElementsMatch(t, []string{"a", "b"}, a.Members())
	require.Len(t, s, 2)

	alone, another := s.Join("", "d"), s.Join("", "e")
	require.NotSame(t, alone, another)
	require.Equal(t, []string{"d"}, alone.Members())
	require.Len(t, s, 2, "they have no key")
}

func TestLeave_DomainEndsWithLastMember(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		timers := schedule.New()
		defer timers.Close()
		s := domain.Set[string]{}
		d, alone := s.Join("key", "a"), s.Join("", "c")
		s.Join("key", "b")
		var ended atomic.Int64
		for _, cooling := range []*domain.Domain[string]{d, alone} {
			require.True(t, cooling.Cooldown.Apply(cooldown.Request{After: time.Minute}, time.Now()))
			cooling.Cooldown.StartTimer(timers, func() { ended.Add(1) })
		}
		s.Leave(d, "a")
		require.Equal(t, []string{"b"}, d.Members())
		require.Same(t, d, s["key"])
		s.Leave(d, "b")
		require.Empty(t, s)
		s.Leave(alone, "c")
		time.Sleep(time.Hour)
		require.Zero(t, ended.Load(), "no timer is left")
		require.NotSame(t, d, s.Join("key", "a"), "the next one is new")
	})
}

func TestLeave_CooldownGoesOnForTheRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		timers := schedule.New()
		defer timers.Close()
		s := domain.Set[string]{}
		d := s.Join("key", "a")
		s.Join("key", "b")
		require.True(t, d.Cooldown.Apply(cooldown.Request{After: time.Minute}, time.Now()))
		var ended atomic.Bool
		d.Cooldown.StartTimer(timers, func() { ended.Store(true) })
		s.Leave(d, "a")
		require.True(t, s.Join("key", "c").Cooldown.Active())
		time.Sleep(time.Hour)
		require.True(t, ended.Load())
	})
}

func TestSetLimits_KeepsPlacesTaken(t *testing.T) {
	t.Parallel()
	d := domain.Set[string]{}.Join("key", "a")
	require.Nil(t, d.Limits())
	require.Zero(t, d.Policy())
	require.Empty(t, d.LimitsBy())
	d.SetLimits(small, status.ProviderID{Service: "s", Name: "a"})
	require.Equal(t, small, d.Policy())
	require.Equal(t, status.ProviderID{Service: "s", Name: "a"}, d.LimitsBy())
	before := d.Limits()
	require.True(t, before.Slots().TryAcquire())
	require.True(t, before.Full())
	d.SetLimits(large, status.ProviderID{Service: "s", Name: "b"})
	require.Equal(t, large, d.Policy())
	require.Equal(t, status.ProviderID{Service: "s", Name: "b"}, d.LimitsBy())
	require.True(t, d.Limits().Slots().TryAcquire())
	require.True(t, d.Limits().Full(), "the place before counts")
	d.SetLimits(limit.Policy{}, status.ProviderID{Service: "s", Name: "b"})
	require.False(t, d.Limits().Full())
	require.Zero(t, d.Policy())
}

func TestSize_CountsMembers(t *testing.T) {
	t.Parallel()
	s := domain.Set[string]{}
	require.Equal(t, 1, s.Join("", "own").Size())
	d := s.Join("key", "a")
	require.Equal(t, 1, d.Size())
	s.Join("key", "b")
	require.Equal(t, 2, d.Size())
}

func TestEach_YieldsMembersUntilItIsToStop(t *testing.T) {
	t.Parallel()
	s := domain.Set[string]{}
	d, alone := s.Join("key", "a"), s.Join("", "own")
	s.Join("key", "b")
	var seen []string
	for member := range d.Each {
		seen = append(seen, member)
	}
	require.ElementsMatch(t, []string{"a", "b"}, seen)
	for member := range d.Each {
		require.Contains(t, seen, member)
		break
	}
	for member := range alone.Each {
		require.Equal(t, "own", member)
	}
}
