package query_test

import (
	"hash/maphash"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/query"
)

// owner is the owner of a plan that counts how often the plan was dropped.
type owner struct {
	query   query.Query
	dropped int
}

func newCache() *query.Cache[*owner] {
	return query.NewCache(maphash.MakeSeed(), func(o *owner) { o.dropped++ })
}

// add adds an owner for the handler with that number.
func add(c *query.Cache[*owner], number int) (created, kept *owner, follows bool) {
	created = &owner{query: query.Query{Handler: "h" + strconv.Itoa(number)}}
	kept, follows = c.Add(&created.query, created)
	return created, kept, follows
}

func TestCache_EqualQueriesHaveOneOwner(t *testing.T) {
	t.Parallel()
	c := newCache()
	_, ok := c.Find(&query.Query{Handler: "h0"})
	require.False(t, ok)
	for number := range query.MostAttached + 10 {
		created, kept, follows := add(c, number)
		require.Same(t, created, kept)
		require.Equal(t, number >= query.MostAttached, follows)
		_, kept, follows = add(c, number)
		require.Same(t, created, kept, "the first one")
		require.Equal(t, number >= query.MostAttached, follows)
		found, ok := c.Find(&created.query)
		require.True(t, ok, "without a lock")
		require.Same(t, created, found)
	}
}

func TestCache_ForgetsFollowersBeyondTheirBound(t *testing.T) {
	t.Parallel()
	c := newCache()
	for number := range query.MostAttached + query.MostFollowers {
		add(c, number)
	}
	created, kept, _ := add(c, query.MostAttached)
	require.NotSame(t, created, kept)
	add(c, -1)
	created, kept, follows := add(c, query.MostAttached)
	require.Same(t, created, kept, "forgotten")
	require.True(t, follows)
}

func TestCache_OutdateDropsEveryPlan(t *testing.T) {
	t.Parallel()
	c := newCache()
	attached, _, _ := add(c, 0)
	shared := c.Shared("kind", func() *owner { return &owner{} })
	require.Same(t, shared, c.Shared("kind", func() *owner { return &owner{} }))
	follower := &owner{}
	c.Follow(follower)
	c.Outdate()
	require.Equal(t, []int{1, 1, 1}, []int{attached.dropped, shared.dropped, follower.dropped})
	c.Outdate()
	require.Equal(t, []int{2, 2, 1}, []int{attached.dropped, shared.dropped, follower.dropped}, "a follower once")
}

func TestCache_DropsOldestSharedPlanWithFollowers(t *testing.T) {
	t.Parallel()
	c := newCache()
	var owners []*owner
	for kind := range query.MostAttached {
		owners = append(owners, c.Shared(strconv.Itoa(kind), func() *owner { return &owner{} }))
	}
	follower := &owner{}
	c.Follow(follower)
	c.Shared("more", func() *owner { return &owner{} })
	require.Equal(t, []int{1, 0, 1}, []int{owners[0].dropped, owners[1].dropped, follower.dropped})
	require.Same(t, owners[1], c.Shared("1", func() *owner { return &owner{} }))
	require.NotSame(t, owners[0], c.Shared("0", func() *owner { return &owner{} }))
	require.Equal(t, 1, owners[1].dropped)
}

func TestCache_BoundsFollowersInUse(t *testing.T) {
	t.Parallel()
	c := newCache()
	first := &owner{}
	c.Follow(first)
	for range query.MostFollowers - 1 {
		c.Follow(&owner{})
	}
	require.Zero(t, first.dropped)
	c.Follow(&owner{})
	require.Equal(t, 1, first.dropped)
}

func TestCache_FindAllocatesNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun
	c := newCache()
	created, _, _ := add(c, 0)
	require.Zero(t, testing.AllocsPerRun(100, func() { c.Find(&created.query) }))
}

func TestIndex_HasMembersByWord(t *testing.T) {
	t.Parallel()
	x := make(query.Index[int])
	x.Insert(1, []string{"a", "b"})
	x.Insert(2, []string{"a"})
	require.Equal(t, map[int]struct{}{1: {}, 2: {}}, x["a"])
	require.Equal(t, map[int]struct{}{1: {}}, x.Fewest([]string{"a", "b"}))
	require.Empty(t, x.Fewest([]string{"a", "c"}))
	x.Delete(1, []string{"a", "b"})
	require.Equal(t, query.Index[int]{"a": {2: {}}}, x, "no empty set is left")
}
