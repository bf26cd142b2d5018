package overall_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/overall"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// provider returns one that is eligible if it is healthy or degraded.
func provider(service, name string, state health.State, groups ...string) overall.Provider {
	return overall.Provider{
		Provider: health.Provider{Name: name, State: state, Eligible: state == health.Healthy || state == health.Degraded},
		Service:  service, Groups: groups,
	}
}

func TestOf_StateOfService(t *testing.T) {
	t.Parallel()
	idle := provider("s", "idle", health.Healthy)
	idle.Eligible = false
	hidden := provider("s", "hidden", health.Healthy)
	hidden.Hidden = true
	mock := provider("s", "mock", health.Healthy)
	mock.Mock = true
	up, slow := provider("s", "up", health.Healthy), provider("s", "slow", health.Degraded)
	down, unknown := provider("s", "down", health.Unhealthy), provider("s", "new", health.Unknown)
	for _, row := range []struct {
		providers []overall.Provider
		state     health.State
		reason    string
		eligible  int
	}{
		{[]overall.Provider{up}, health.Healthy, "", 1},
		{[]overall.Provider{up, slow}, health.Degraded, "slow", 2},
		{[]overall.Provider{up, idle}, health.Degraded, "idle", 1},
		{[]overall.Provider{idle}, health.Degraded, "idle", 0},
		{[]overall.Provider{slow, down, up}, health.Degraded, "down, slow", 2},
		{[]overall.Provider{down, unknown}, health.Unhealthy, "no provider is healthy: down, new", 0},
		{[]overall.Provider{mock}, health.Degraded, "only mocks: mock", 1},
		{[]overall.Provider{hidden, mock}, health.Degraded, "only mocks: mock", 2},
		{[]overall.Provider{up, mock}, health.Healthy, "", 2},
		{[]overall.Provider{down, mock}, health.Degraded, "down", 1},
		{[]overall.Provider{hidden}, health.Unhealthy, "no provider", 1},
		{[]overall.Provider{hidden, up}, health.Healthy, "", 2},
		{[]overall.Provider{hidden, down}, health.Unhealthy, "no provider is healthy: down", 1},
	} {
		all := overall.Of(row.providers, nil, nil)
		require.Len(t, all.Services, 1)
		s := all.Services[0]
		require.Equal(t, row.state, s.State, "%+v", row.providers)
		require.Equal(t, row.reason, s.Reason)
		require.Equal(t, row.eligible, s.Eligible)
		require.Len(t, s.Providers, len(row.providers))
		require.Equal(t, row.state, all.State, "that of the only service")
	}
}

func TestOf_StateOfAll(t *testing.T) {
	t.Parallel()
	a, b := provider("a", "pa", health.Healthy), provider("b", "pb", health.Unhealthy)
	slow := provider("c", "pc", health.Degraded)
	for name, row := range map[string]struct {
		providers []overall.Provider
		required  []string
		state     health.State
		counts    [3]int
		reason    string
	}{
		"nothing":      {state: health.Unhealthy, reason: "nothing is registered"},
		"healthy":      {providers: []overall.Provider{a}, required: []string{"a"}, state: health.Healthy, counts: [3]int{1, 0, 0}},
		"one of two":   {providers: []overall.Provider{a, b}, state: health.Degraded, counts: [3]int{1, 0, 1}, reason: `service "b" is unhealthy: no provider is healthy: pb`},
		"degraded":     {providers: []overall.Provider{a, slow}, state: health.Degraded, counts: [3]int{1, 1, 0}, reason: `service "c" is degraded: pc`},
		"all":          {providers: []overall.Provider{b}, state: health.Unhealthy, counts: [3]int{0, 0, 1}, reason: `service "b" is unhealthy: no provider is healthy: pb`},
		"required":     {providers: []overall.Provider{a, b}, required: []string{"b"}, state: health.Unhealthy, counts: [3]int{1, 0, 1}, reason: `service "b" is unhealthy: no provider is healthy: pb`},
		"none of them": {providers: []overall.Provider{a}, required: []string{"0", "z"}, state: health.Unhealthy, counts: [3]int{1, 0, 2}, reason: `service "0" is unhealthy: no provider; service "z" is unhealthy: no provider`},
	} {
		all := overall.Of(row.providers, row.required, nil)
		require.Equal(t, row.state, all.State, name)
		counts := [3]int{all.Healthy, all.Degraded, all.Unhealthy}
		require.Equal(t, row.counts, counts, name)
		require.Equal(t, row.reason, all.Reason, name)
		require.IsIncreasing(t, append([]string{""}, names(all)...), name)
	}
}

func names(all health.Overall) (names []string) {
	for _, s := range all.Services {
		names = append(names, s.Name)
	}
	return names
}

func TestOf_GroupsSelectProviders(t *testing.T) {
	t.Parallel()
	providers := []overall.Provider{
		provider("a", "ready", health.Healthy, health.Readiness, "x"),
		provider("a", "down", health.Unhealthy, "y"),
		provider("b", "other", health.Healthy, "y"),
	}
	all := overall.Of(providers, []string{"c"}, []string{health.Readiness})
	require.Equal(t, health.Unhealthy, all.State, "what is required counts for readiness")
	require.Equal(t, []string{"a", "c"}, names(all))
	require.Equal(t, []health.Provider{providers[0].Provider}, all.Services[0].Providers)
	require.Empty(t, all.Services[1].Providers)
	require.NotNil(t, all.Services[1].Providers, "an empty list in JSON")
	require.True(t, all.Services[1].Required)

	all = overall.Of(providers, []string{"c"}, []string{"y"})
	require.Equal(t, health.Degraded, all.State)
	require.Equal(t, []string{"a", "b"}, names(all), "but not for other groups")
	require.Equal(t, health.Healthy, overall.Of(providers, nil, []string{"x", "unknown"}).State)

	all = overall.Of(providers, nil, []string{"misspelt"})
	require.Equal(t, health.Overall{State: health.Healthy}, all)
	require.Equal(t, health.Unhealthy, overall.Of(nil, nil, []string{health.Readiness}).State)
}

func TestOf_ReasonNamesFewServices(t *testing.T) {
	t.Parallel()
	var providers []overall.Provider
	for i := range 20 {
		providers = append(providers, provider(fmt.Sprintf("s%02d", i), "p", health.Degraded))
	}
	all := overall.Of(providers, nil, nil)
	require.Equal(t, 20, all.Degraded)
	require.Equal(t, 16, strings.Count(all.Reason, "service"))
	require.True(t, strings.HasSuffix(all.Reason, `service "s15" is degraded: p; and 4 more`), all.Reason)
	require.NotContains(t, overall.Of(providers[:16], nil, nil).Reason, "more")
}
