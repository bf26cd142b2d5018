package override_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/override"
	"github.com/capreg/registry/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSet_OnlyTheSameOwnerAndItsPartsMayOverrideMore(t *testing.T) {
	var s override.Set
	first, v := s.Begin("TestA", status.ProviderID{Service: "chat"})
	require.Nil(t, v)
	require.Equal(t, "TestA", first.Owner)
	for owner, allowed := range map[string]bool{"TestA": true, "TestA/sub": true, "TestB": false, "TestAB": false, "Test": false} {
		o, v := s.Begin(owner, status.ProviderID{Service: "chat", Name: "p"})
		require.Equal(t, allowed, v == nil, owner)
		if v == nil {
			require.True(t, s.End(o))
			continue
		}
		require.Equal(t, "by", v.Field)
		require.Equal(t, `"TestA" or a part of it, which overrides service "chat": concurrent tests need a registry of their own`, v.Bound)
	}
	require.True(t, s.End(first))
	_, v = s.Begin("TestB", status.ProviderID{Service: "chat", Name: "p"})
	require.Nil(t, v, "the override has ended")
	_, v = s.Begin("TestC", status.ProviderID{Service: "chat"})
	require.Contains(t, v.Bound, `which overrides provider "p" of service "chat"`)
}

func TestSet_NamesOfAnyLengthAreCutInErrors(t *testing.T) {
	var s override.Set
	long := strings.Repeat("x", 1000)
	_, v := s.Begin(long, status.ProviderID{Service: "chat", Name: long})
	require.Nil(t, v)
	_, v = s.Begin("TestB", status.ProviderID{Service: "chat"})
	require.Less(t, len(v.Bound), 300)
	require.Less(t, len(s.CheckName(status.ProviderID{Service: "chat", Name: long}).Bound), 200)
}

func TestSet_AnOverrideEndsOnceInAnyOrder(t *testing.T) {
	var s override.Set
	first, _ := s.Begin("TestA", status.ProviderID{Service: "chat"})
	second, _ := s.Begin("TestA", status.ProviderID{Service: "chat"})
	require.Greater(t, second.ID, first.ID)
	require.True(t, s.End(first))
	require.False(t, s.End(first))
	_, v := s.Begin("TestB", status.ProviderID{Service: "chat"})
	require.NotNil(t, v, "the second is in force")
	require.True(t, s.End(second))
}

func TestSet_TheNameOfAnOverriddenProviderIsTaken(t *testing.T) {
	var s override.Set
	o, _ := s.Begin("TestA", status.ProviderID{Service: "chat", Name: "p"})
	_, _ = s.Begin("TestA", status.ProviderID{Service: "chat"})
	v := s.CheckName(status.ProviderID{Service: "chat", Name: "p"})
	require.Equal(t, "Name", v.Field)
	require.Equal(t, `a name that is not swapped; "TestA" has swapped it`, v.Bound)
	require.Nil(t, s.CheckName(status.ProviderID{Service: "chat", Name: "q"}))
	require.Nil(t, s.CheckName(status.ProviderID{Service: "mail", Name: "p"}), "that of another service")
	require.Nil(t, s.CheckName(status.ProviderID{Service: "chat", Name: ""}), "an override of a service takes no name")
	s.End(o)
	require.Nil(t, s.CheckName(status.ProviderID{Service: "chat", Name: "p"}))
}

func TestStack_HidesAllButTheProvidersOfTheLatestOverride(t *testing.T) {
	var all override.Set
	var s override.Stack
	require.Nil(t, s.Hides(0))
	first, _ := all.Begin("TestA", status.ProviderID{Service: "chat"})
	s.Push(first)
	require.EqualError(t, s.Hides(0), `overridden by "TestA"`)
	require.Nil(t, s.Hides(first.ID))

	second, _ := all.Begin("TestA/sub", status.ProviderID{Service: "chat"})
	s.Push(second)
	require.EqualError(t, s.Hides(first.ID), `overridden by "TestA/sub"`)
	require.Nil(t, s.Hides(second.ID))

	s.Remove(first)
	require.EqualError(t, s.Hides(0), `overridden by "TestA/sub"`)
	s.Remove(first)
	require.EqualError(t, s.Hides(0), `overridden by "TestA/sub"`)
	s.Remove(second)
	require.Nil(t, s.Hides(0))
}

func TestDomainKey_OverridesShareDomainsOfTheirOwn(t *testing.T) {
	require.Equal(t, "key", override.DomainKey("key", false))
	require.Equal(t, "\x00key", override.DomainKey("key", true), "no name of a registration begins so")
	require.Empty(t, override.DomainKey("", true), "a domain of its own")
}
