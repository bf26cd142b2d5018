package query_test

import (
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/query"
	"github.com/capreg/registry/selection"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// full returns a query with all fields, in an order that is not normal.
func full() query.Query {
	return query.Query{
		Handler: "h", OwnOnly: true, Require: []string{"b", "a"}, TryRefused: true,
		Where: selection.Requirements{
			MaxLatency: time.Second, MaxCost: 2, MinVersion: "1.2",
			Tags: []string{"t2", "t1"}, Regions: []string{"r2", "r1"}, Exclude: []string{"e2", "e1"},
		},
		Only: []string{"o2", "o1"}, Prefer: []string{"p2", "p1"}, Near: "eu", Key: "k",
	}
}

// changes has one change for each field that distinguishes queries.
func changes() map[string]func(q *query.Query) {
	return map[string]func(q *query.Query){
		"handler":         func(q *query.Query) { q.Handler = "x" },
		"own only":        func(q *query.Query) { q.OwnOnly = !q.OwnOnly },
		"word of require": func(q *query.Query) { q.Require = []string{"a", "c"} },
		"more required":   func(q *query.Query) { q.Require = append(q.Require, "c") },
		"try refused":     func(q *query.Query) { q.TryRefused = !q.TryRefused },
		"latency":         func(q *query.Query) { q.Where.MaxLatency++ },
		"cost":            func(q *query.Query) { q.Where.MaxCost++ },
		"version":         func(q *query.Query) { q.Where.MinVersion = "9" },
		"tags":            func(q *query.Query) { q.Where.Tags = []string{"x"} },
		"regions":         func(q *query.Query) { q.Where.Regions = []string{"x"} },
		"exclude":         func(q *query.Query) { q.Where.Exclude = []string{"x"} },
		"only":            func(q *query.Query) { q.Only = []string{"x"} },
		"prefer":          func(q *query.Query) { q.Prefer = []string{"x"} },
		"near":            func(q *query.Query) { q.Near = "x" },
	}
}

func TestNormal_SortsAndFoldsWords(t *testing.T) {
	t.Parallel()
	q := full()
	q.Require = append(q.Require, "b")
	want := full()
	want.Key = ""
	for _, words := range [][]string{want.Only, want.Require, want.Prefer, want.Where.Tags, want.Where.Regions, want.Where.Exclude} {
		slices.Sort(words)
	}
	n := q.Normal()
	require.Equal(t, want, n)
	require.Equal(t, n, n.Normal())
	require.Equal(t, []string{"b", "a", "b"}, q.Require, "the query stays as it is")

	q = query.Query{Handler: query.GlobalHandler, Require: []string{}}
	require.Equal(t, query.Query{}, q.Normal())
}

func TestClone_SharesNothing(t *testing.T) {
	t.Parallel()
	q := full()
	c := q.Clone()
	require.Equal(t, q, c)
	q.Only[0], q.Require[0], q.Prefer[0], q.Where.Tags[0] = "x", "x", "x", "x"
	require.Equal(t, full(), c)
}

func TestEqual_WhateverTheOrderOfWordsAndTheKey(t *testing.T) {
	t.Parallel()
	seed := maphash.MakeSeed()
	q := full()
	n := q.Normal()
	for range 20 {
		for _, words := range [][]string{q.Only, q.Require, q.Prefer, q.Where.Tags, q.Where.Regions, q.Where.Exclude} {
			rand.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
		}
		require.True(t, q.Equal(&n))
		require.Equal(t, n.Hash(seed), q.Hash(seed))
	}
}

func TestEqual_EachFieldDistinguishes(t *testing.T) {
	t.Parallel()
	seed := maphash.MakeSeed()
	for name, change := range changes() {
		for _, original := range []query.Query{full(), {}} {
			changed := original.Clone()
			change(&changed)
			n, other := original.Normal(), changed.Normal()
			require.True(t, original.Equal(&n), name)
			require.False(t, changed.Equal(&n), name)
			require.False(t, original.Equal(&other), name)
			require.NotEqual(t, original.Hash(seed), changed.Hash(seed), name)
		}
	}
}

func TestHash_SameWordInDifferentFieldsDiffers(t *testing.T) {
	t.Parallel()
	seed := maphash.MakeSeed()
	word := []string{"w"}
	seen := map[uint64]query.Query{}
	for _, q := range []query.Query{
		{},
		{Handler: "w"},
		{Handler: "w", OwnOnly: true},
		{Require: word},
		{Only: word},
		{Prefer: word},
		{Near: "w"},
		{Where: selection.Requirements{Tags: word}},
		{Where: selection.Requirements{Regions: word}},
		{Where: selection.Requirements{Exclude: word}},
		{Where: selection.Requirements{MinVersion: "w"}},
	} {
		sum := q.Hash(seed)
		require.NotContains(t, seen, sum, "%+v", q)
		seen[sum] = q
	}
}

func TestHash_AllocatesNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun
	seed := maphash.MakeSeed()
	q := query.Query{Handler: "h", Require: []string{"b", "a"}}
	n := q.Normal()
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = q.Hash(seed) == 0 || q.Equal(&n) }))
}

func TestSelective_WhereAFieldRejectsOrPrefers(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		query            query.Query
		basic, selective bool
	}{
		{query.Query{}, true, false},
		{query.Query{Handler: "h", OwnOnly: true, TryRefused: true, Key: "k"}, true, false},
		{query.Query{Require: []string{"a"}}, true, true},
		{query.Query{Prefer: []string{"a"}}, false, true},
		{query.Query{Only: []string{"a"}}, false, true},
		{query.Query{Near: "eu"}, false, true},
		{query.Query{Where: selection.Requirements{MaxCost: 1}}, false, true},
	} {
		require.Equal(t, row.basic, row.query.Basic(), "%+v", row.query)
		require.Equal(t, row.selective, row.query.Selective(), "%+v", row.query)
	}
}

func TestString_DescribesWhatIsSet(t *testing.T) {
	t.Parallel()
	q := full()
	for want, q := range map[string]query.Query{
		"":                      {Handler: query.GlobalHandler, TryRefused: true, Key: "k"},
		" for handler h":        {Handler: "h"},
		" for handler h alone":  {Handler: "h", OwnOnly: true},
		" requiring b, a":       {Require: []string{"b", "a"}},
		" of a, b requiring c":  {Only: []string{"a", "b"}, Require: []string{"c"}},
		" preferring p near eu": {Prefer: []string{"p"}, Near: "eu"},
		" near one line":        {Near: "one\nline"},
		" for handler h alone of o2, o1 requiring b, a where " + q.Where.String() + " preferring p2, p1 near eu": q,
	} {
		require.Equal(t, want, q.String())
	}
}

func TestString_CutsLongWords(t *testing.T) {
	t.Parallel()
	name, list := strings.Repeat("n", 64), strings.Repeat("l", 200)
	for want, q := range map[string]query.Query{
		" for handler " + name: {Handler: name},
		" requiring " + list:   {Require: []string{list}},
		" preferring " + list:  {Prefer: []string{list}},
		" near " + name:        {Near: name},
	} {
		require.Equal(t, want, q.String(), "it fits")
	}
	for want, q := range map[string]query.Query{
		" for handler " + name + "…": {Handler: name + "n"},
		" requiring " + list + "…":   {Require: []string{list + "l"}},
		" preferring " + list + "…":  {Prefer: []string{list + "l"}},
		" near " + name + "…":        {Near: name + "n"},
	} {
		require.Equal(t, want, q.String())
	}
	q := query.Query{Where: selection.Requirements{Tags: []string{strings.Repeat("t", 300)}}}
	where, cut := q.Where.String(), q.String()
	require.Greater(t, len(where), 200)
	require.Equal(t, " where "+where[:200]+"…", cut)
}

func TestSharedKey_IsThatOfQueriesWithTheSamePlan(t *testing.T) {
	t.Parallel()
	q, other := query.Query{Require: []string{"x"}, Near: "eu"}, query.Query{Near: "us"}
	candidates := []uint64{1, 23}
	require.Equal(t, q.SharedKey(candidates, false), other.SharedKey(candidates, false))
	require.NotEqual(t, q.SharedKey(candidates, true), other.SharedKey(candidates, true), "a strategy sees it")
	require.NotEqual(t, q.SharedKey(candidates, false), q.SharedKey([]uint64{12, 3}, false))
	require.NotEqual(t, q.SharedKey(nil, false), q.SharedKey(nil, true))
}
