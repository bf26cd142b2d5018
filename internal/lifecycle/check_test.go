package lifecycle_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/lifecycle"
	"github.com/capreg/registry/startup"
)

func TestCheckedOptions_FillsInDefaults(t *testing.T) {
	t.Parallel()
	got, v := lifecycle.CheckedOptions(startup.Options{})
	require.Nil(t, v)
	require.Equal(t, startup.Options{StartTimeout: 30 * time.Second, StopTimeout: 10 * time.Second}, got)
	again, v := lifecycle.CheckedOptions(got)
	require.Nil(t, v)
	require.Equal(t, got, again)
}

func TestCheckedOptions_RefusesWhatIsOutOfBounds(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		given startup.Options
		want  check.Violation
	}{
		{startup.Options{MaxConcurrent: -1}, check.Violation{Field: "MaxConcurrent", Value: "-1", Bound: "0 (any number) or more"}},
		{startup.Options{OnFailure: 9}, check.Violation{Field: "OnFailure", Value: "policy(9)", Bound: "Abort, SkipDependants or Continue"}},
		{startup.Options{StartTimeout: -1}, check.Violation{Field: "StartTimeout", Value: "-1ns", Bound: "0 (default 30s) to 24h0m0s"}},
		{startup.Options{StopTimeout: 25 * time.Hour}, check.Violation{Field: "StopTimeout", Value: "25h0m0s", Bound: "0 (default 10s) to 24h0m0s"}},
	} {
		_, v := lifecycle.CheckedOptions(row.given)
		require.Equal(t, &row.want, v)
	}
}

func TestCheckComponents_FillsInDefaultsAndCopiesWhatItChanges(t *testing.T) {
	t.Parallel()
	provides, restart := []string{"x", "y", "x"}, startup.Restart{FirstDelay: time.Minute}
	components := []component{
		{Name: "a", Provides: provides, Needs: startup.Capabilities("z")},
		{Name: "b", Provides: []string{"x"}, Restart: &restart, StopTimeout: 1},
	}
	require.Nil(t, lifecycle.CheckComponents(components, startup.Options{StartTimeout: time.Second, StopTimeout: time.Hour}))
	require.Equal(t, startup.Restart{FirstDelay: time.Minute}, restart)
	require.Equal(t, []string{"x", "y", "x"}, provides)
	provides[0] = "changed"
	require.Equal(t, []component{
		{
			Name: "a", Provides: []string{"x", "y"}, Needs: startup.Capabilities("z"), StartTimeout: time.Second, StopTimeout: time.Hour,
			Restart: &startup.Restart{MaxRestarts: 5, Decay: 30 * time.Second, FirstDelay: 100 * time.Millisecond, MaxDelay: 15 * time.Second},
		},
		{
			Name: "b", Provides: []string{"x"}, StartTimeout: time.Second, StopTimeout: 1,
			Restart: &startup.Restart{MaxRestarts: 5, Decay: 30 * time.Second, FirstDelay: time.Minute, MaxDelay: time.Minute},
		},
	}, components)
}

func TestCheckComponents_RefusesWhatIsOutOfBounds(t *testing.T) {
	t.Parallel()
	type restart = startup.Restart
	for _, row := range []struct {
		given component
		want  check.Violation
	}{
		{component{}, check.Violation{Field: "Component.Name", Value: `""`, Bound: "a name"}},
		{component{Provides: []string{"x", ""}}, check.Violation{Field: "Provides[1]", Value: `""`, Bound: "a name"}},
		{component{Needs: []startup.Need{{}}}, check.Violation{Field: "Needs[0]", Value: `"\"\""`, Bound: "either a Capability or a Component"}},
		{component{Needs: []startup.Need{{Component: " b"}}}, check.Violation{Field: "Needs[0]", Value: `" b"`, Bound: "no space at its ends"}},
		{component{Kind: "a "}, check.Violation{Field: "Kind", Value: `"a "`, Bound: "no space at its ends"}},
		{component{StartTimeout: -1}, check.Violation{Field: "StartTimeout", Value: "-1ns", Bound: "0 (default 30s) to 24h0m0s"}},
		{component{StopTimeout: -1}, check.Violation{Field: "StopTimeout", Value: "-1ns", Bound: "0 (default 10s) to 24h0m0s"}},
		{component{Restart: &restart{Decay: -1}}, check.Violation{Field: "Restart.Decay", Value: "-1ns", Bound: "0 (default 30s) to 24h0m0s"}},
		{component{Restart: &restart{FirstDelay: -1}}, check.Violation{Field: "Restart.FirstDelay", Value: "-1ns", Bound: "0 (default 100ms) to 24h0m0s"}},
		{component{Restart: &restart{MaxDelay: -1}}, check.Violation{Field: "Restart.MaxDelay", Value: "-1ns", Bound: "0 (default 15s) to 24h0m0s"}},
		{component{Restart: &restart{MaxRestarts: -1}}, check.Violation{Field: "Restart.MaxRestarts", Value: "-1", Bound: "0 (default 5) or more"}},
		{component{Restart: &restart{Mode: 9}}, check.Violation{Field: "Restart.Mode", Value: "mode(9)", Bound: "Never, OnFailure or Always"}},
	} {
		options, v := lifecycle.CheckedOptions(startup.Options{})
		require.Nil(t, v)
		if row.want.Field != "Component.Name" {
			row.given.Name = "a"
			row.want.Field = `Component["a"].` + row.want.Field
		}
		require.Equal(t, &row.want, lifecycle.CheckComponents([]component{row.given}, options))
	}
}
