package pick_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
)

func TestStrategies_ResolveNames(t *testing.T) {
	t.Parallel()
	own := selection.New("OWN", selection.Func(func(selection.View) int { return 0 }))
	known, v := pick.NewStrategies([]selection.Strategy{own})
	require.Nil(t, v)
	var named, unknown selection.Strategy
	require.NoError(t, named.UnmarshalText([]byte("OWN")))
	require.NoError(t, unknown.UnmarshalText([]byte("OTHER")))

	require.True(t, known.Resolve(named).Same(own))
	require.Nil(t, known.Check(known.Resolve(named)))
	require.Nil(t, known.Check(selection.RoundRobin()))
	require.Equal(t, "one of FALLBACK, ROUND_ROBIN, OWN (see Options.Strategies)", known.Check(known.Resolve(unknown)).Bound)
}

func TestNewStrategies_RefusesNamesAndRepetitions(t *testing.T) {
	t.Parallel()
	own := selection.New("OWN", selection.Func(func(selection.View) int { return 0 }))
	_, v := pick.NewStrategies([]selection.Strategy{own, own})
	require.Equal(t, "Strategies[1]", v.Field)
	_, v = pick.NewStrategies([]selection.Strategy{{}})
	require.Equal(t, "Strategies[0]", v.Field)
}
