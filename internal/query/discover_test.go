package query_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/query"
)

func TestQuery_ListsTheProvidersOfHandlers(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		given query.Query
		want  map[string]bool
	}{
		{query.Query{}, map[string]bool{"": true, "a": true, "b": true}},
		{query.Query{Handler: "*"}, map[string]bool{"": true, "a": false, "b": false}},
		{query.Query{Handler: "a"}, map[string]bool{"": true, "a": true, "b": false}},
		{query.Query{Handler: "a", OwnOnly: true}, map[string]bool{"": false, "a": true, "b": false}},
	} {
		for handler, want := range row.want {
			require.Equal(t, want, row.given.Lists(handler), "%v lists handler %q", row.given, handler)
		}
	}
}

func TestCheckStates_NamesTheOneThatIsNone(t *testing.T) {
	t.Parallel()
	require.Nil(t, query.CheckStates(nil))
	require.Nil(t, query.CheckStates([]health.State{health.Unknown, health.Draining}))
	require.Equal(t, &check.Violation{Field: "states[1]", Value: "state(9)", Bound: "a state of package health"},
		query.CheckStates([]health.State{health.Healthy, 9}))
}
