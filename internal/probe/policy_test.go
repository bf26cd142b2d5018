package probe_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/probe"
)

func TestChecked_FillsInDefaults(t *testing.T) {
	t.Parallel()
	usual := health.Policy{
		Interval: 30 * time.Second, FastInterval: 5 * time.Second, IdleInterval: time.Minute, Timeout: 5 * time.Second,
		Fall: 3, Rise: 2, RecoverLimit: 5, RecoverTimeout: 30 * time.Second, Groups: []string{health.Readiness},
	}
	got, v := probe.Checked(health.Policy{}, nil)
	require.Nil(t, v)
	require.Equal(t, usual, got)
	again, v := probe.Checked(got, nil)
	require.Nil(t, v)
	require.Equal(t, got, again)

	got, v = probe.Checked(health.Policy{Interval: time.Millisecond, Groups: []string{"a", "b", "a"}}, nil)
	require.Nil(t, v)
	require.Equal(t, time.Millisecond, got.FastInterval, "not shorter than the shortest")
	require.Equal(t, []string{"a", "b"}, got.Groups)
}

func TestChecked_SharesNoMap(t *testing.T) {
	t.Parallel()
	given := health.Policy{Capabilities: map[string]health.Probe{"chat": func(context.Context) error { return nil }}}
	got, v := probe.Checked(given, []string{"chat"})
	require.Nil(t, v)
	delete(given.Capabilities, "chat")
	require.Contains(t, got.Capabilities, "chat")
}

func TestChecked_RefusesWhatIsOutOfBounds(t *testing.T) {
	t.Parallel()
	type policy = health.Policy
	const interval, anyTime = "0 (default), or 1ms to 87600h0m0s", "0 (default), or 0s to 87600h0m0s"
	const longest = 10 * 365 * 24 * time.Hour
	for _, row := range []struct {
		given policy
		want  check.Violation
	}{
		{policy{Interval: 1}, check.Violation{Field: "Interval", Value: "1ns", Bound: interval}},
		{policy{FastInterval: -1}, check.Violation{Field: "FastInterval", Value: "-1ns", Bound: interval}},
		{policy{IdleInterval: longest + 1}, check.Violation{Field: "IdleInterval", Value: "87600h0m0.000000001s", Bound: interval}},
		{policy{Timeout: -1}, check.Violation{Field: "Timeout", Value: "-1ns", Bound: anyTime}},
		{policy{StartTime: -1}, check.Violation{Field: "StartTime", Value: "-1ns", Bound: anyTime}},
		{policy{Expected: -1}, check.Violation{Field: "Expected", Value: "-1ns", Bound: anyTime}},
		{policy{RecoverTimeout: -1}, check.Violation{Field: "RecoverTimeout", Value: "-1ns", Bound: anyTime}},
		{policy{Fall: -1}, check.Violation{Field: "Fall", Value: "-1", Bound: "0 (default 3) or more"}},
		{policy{Rise: -1}, check.Violation{Field: "Rise", Value: "-1", Bound: "0 (default 2) or more"}},
		{policy{RecoverLimit: -1}, check.Violation{Field: "RecoverLimit", Value: "-1", Bound: "0 (default 5) or more"}},
		{policy{Capabilities: map[string]health.Probe{"x": nil}}, check.Violation{Field: `Capabilities["x"]`, Value: "unknown", Bound: "one of the provider's Capabilities"}},
		{policy{Capabilities: map[string]health.Probe{"chat": nil}}, check.Violation{Field: `Capabilities["chat"]`, Value: "nil", Bound: "a probe"}},
		{policy{Groups: []string{"a", ""}}, check.Violation{Field: "Groups[1]", Value: `""`, Bound: "a name"}},
	} {
		_, v := probe.Checked(row.given, []string{"chat"})
		require.Equal(t, &row.want, v)
	}
}

func TestSettings_NameWhatDecides(t *testing.T) {
	t.Parallel()
	require.Equal(t, "off", probe.Settings(health.Policy{Off: true}))
	require.Equal(t, "interval 1s timeout 2s fall 3 rise 4", probe.Settings(health.Policy{Interval: time.Second, Timeout: 2 * time.Second, Fall: 3, Rise: 4}))
}

func TestKeep_KeepsFunctionsUnlessOthersAreGiven(t *testing.T) {
	t.Parallel()
	ok := func(context.Context) error { return nil }
	now := health.Policy{Probe: ok, Recover: ok, Interval: time.Minute, Capabilities: map[string]health.Probe{"x": ok, "y": ok}}
	given := health.Policy{Interval: time.Hour}
	require.True(t, probe.Keep(&given, now, []string{"y", "z"}))
	require.NotNil(t, given.Probe)
	require.NotNil(t, given.Recover)
	require.Len(t, given.Capabilities, 1, "that of x has nothing to check")
	require.Contains(t, given.Capabilities, "y")
	require.Len(t, now.Capabilities, 2)
	require.Equal(t, health.Policy{Interval: time.Hour}, probe.Data(given))
	require.NotNil(t, given.Probe)
	for _, another := range []health.Policy{{Probe: ok}, {Recover: ok}, {Capabilities: map[string]health.Probe{"x": ok}}} {
		require.False(t, probe.Keep(&another, now, []string{"x", "y"}))
		require.True(t, another.Probe == nil || another.Recover == nil)
	}
}

func TestData_SharesNothing(t *testing.T) {
	t.Parallel()
	p := health.Policy{Groups: []string{"a"}}
	probe.Data(p).Groups[0] = "b"
	require.Equal(t, []string{"a"}, p.Groups)
}
