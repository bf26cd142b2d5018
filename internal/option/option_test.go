package option_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/option"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type set = option.Set[string]

func TestSet_LaterOptionsWin(t *testing.T) {
	t.Parallel()
	first, second := "first", "second"
	var all set
	for _, each := range []set{
		{OnceOnly: true},
		{Timed: true, Timeout: time.Hour},
		{Caller: "a"},
		{Report: &first},
		{Bounded: true, MaxParallel: 1},
		{Wait: true},
		{Timed: true, Timeout: time.Second},
		{Caller: "b"},
		{Report: &second},
		{Bounded: true, MaxParallel: 2},
		{},
	} {
		all.Merge(&each)
	}
	require.Equal(t, set{
		OnceOnly: true, Timed: true, Wait: true, Timeout: time.Second, Caller: "b", Report: &second, Bounded: true, MaxParallel: 2,
	}, all)
	require.Nil(t, all.Check())
}

func TestSet_EachOptionHasItsNameAndBound(t *testing.T) {
	t.Parallel()
	report := ""
	for text, each := range map[string]set{
		"none": {}, "OnceOnly": {OnceOnly: true}, "AttemptTimeout(0s)": {Timed: true}, "WaitForCooldown": {Wait: true},
		`Caller("\n")`: {Caller: "\n"}, "ReportTo": {Report: &report}, "MaxParallel(-1)": {Bounded: true, MaxParallel: -1},
	} {
		require.Equal(t, text, each.String())
		v := each.Check()
		switch {
		case each.Timed:
			require.Equal(t, "AttemptTimeout", v.Field)
		case each.Bounded:
			require.Equal(t, "MaxParallel", v.Field)
		case each.Caller != "":
			require.Equal(t, "Caller", v.Field)
		default:
			require.Nil(t, v)
		}
	}
}
