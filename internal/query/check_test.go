package query_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/query"
	"github.com/capreg/registry/selection"
)

func TestCheck_NamesTheFirstFieldThatIsOutOfBounds(t *testing.T) {
	many := strings.Split(strings.Repeat("w,", check.LongestList), ",")
	where := func(r selection.Requirements) query.Query { return query.Query{Where: r} }
	for field, q := range map[string]query.Query{
		"Query.Handler":          {Handler: " h", OwnOnly: true, Near: " "},
		"Query.OwnOnly":          {OwnOnly: true},
		"Query.Require":          {Require: many},
		"Query.Require[1]":       {Require: []string{"a", ""}, Prefer: []string{""}},
		"Query.Where.MaxLatency": where(selection.Requirements{MaxLatency: -time.Second}),
		"Query.Where.MinVersion": where(selection.Requirements{MinVersion: "\xff"}),
		"Query.Only[0]":          {Only: []string{"a b "}},
		"Query.Near":             {Near: "eu\n", Prefer: []string{""}},
		"Query.Prefer[0]":        {Prefer: []string{"\x00"}},
		"Query.Where.Tags[0]":    where(selection.Requirements{Tags: []string{""}}),
		"Query.Where.Regions":    where(selection.Requirements{Regions: many}),
		"Query.Where.Exclude[0]": where(selection.Requirements{Exclude: []string{" "}}),
	} {
		v := q.Check()
		require.NotNil(t, v, field)
		require.Equal(t, field, v.Field)
		require.NotEmpty(t, v.Bound)
	}
}

func TestCheck_OwnOnlyNeedsAHandlerOfItsOwn(t *testing.T) {
	for handler, valid := range map[string]bool{"": false, query.GlobalHandler: false, "h": true} {
		q := query.Query{Handler: handler, OwnOnly: true}
		require.Equal(t, valid, q.Check() == nil, handler)
	}
}

func TestCheck_ChangesNothing(t *testing.T) {
	q := full()
	q.Require = []string{"b", "a", "b"}
	before := q.Clone()
	require.Nil(t, q.Check())
	require.Equal(t, before, q)
}
