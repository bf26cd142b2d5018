package query_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/query"
)

func TestScopes_AreTheHandlersOwnThenTheGlobalOnes(t *testing.T) {
	t.Parallel()
	members := map[string]struct{}{"b": {}, "a": {}, "x/d": {}, "x/c": {}, "y/e": {}, "any": {}}
	handler := func(m string) string {
		own, _, found := strings.Cut(m, "/")
		if !found {
			return ""
		}
		return own
	}
	s := query.ScopesOf(members, handler, strings.Compare)
	matchesAny := func(m string) bool { return m == "any" }
	require.Equal(t, [][]string{{"a", "any", "b"}}, s.Of("", false, matchesAny))
	require.Equal(t, [][]string{{"x/c", "x/d"}, {"a", "any", "b"}}, s.Of("x", false, matchesAny))
	require.Equal(t, [][]string{{"x/c", "x/d"}, {"any"}}, s.Of("x", true, matchesAny))
	require.Equal(t, [][]string{nil, {"any"}}, s.Of("z", true, matchesAny))
	require.Equal(t, [][]string{{"a", "any", "b"}}, s.Of("", false, matchesAny), "nothing was taken out")
}
