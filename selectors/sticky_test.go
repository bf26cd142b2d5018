package selectors_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

// owners returns the candidate of each of many keys.
func owners(g *group, keys int) []int {
	all := make([]int, keys)
	for i := range all {
		g.key = fmt.Sprintf("session-%d", i)
		all[i] = g.pick(selectors.Sticky())
	}
	return all
}

func TestSticky_KeyStaysWithOneProviderInEveryProcess(t *testing.T) {
	t.Parallel()
	g := newGroup(selection.Request{}, selection.Policy{}, profiles(5, nil)...)
	first := owners(g, 500)
	g.cursor = choice.NewCursor(99)
	require.Equal(t, first, owners(g, 500))
	// As written down once: another hash would send every session elsewhere.
	require.Equal(t, []int{0, 1, 4, 0, 0, 2, 4, 4, 1, 0}, first[:10])
}

func TestSticky_DistributesKeysByWeight(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]float64{{1, 1, 1, 1}, {1, 2, 3, 4}, {0.5, 10, 1, 1}} {
		total, counts, want := 0.0, make([]int, 4), make([]float64, 4)
		for _, w := range weights {
			total += w
		}
		g := newGroup(selection.Request{}, selection.Policy{}, profiles(4, func(i int, p *choice.Profile) { p.Weight = weights[i] })...)
		for _, owner := range owners(g, 20_000) {
			counts[owner]++
		}
		for i, w := range weights {
			want[i] = w / total
		}
		requireShares(t, want, counts)
	}
}

func TestSticky_OnlyKeysOfALeavingProviderMove(t *testing.T) {
	t.Parallel()
	for _, weight := range []float64{0, 3} {
		g := newGroup(selection.Request{}, selection.Policy{}, profiles(6, func(i int, p *choice.Profile) {
			if i == 4 {
				p.Weight = weight
			}
		})...)
		before := owners(g, 5000)
		g.down = 1 << 2
		moved := make([]int, 6)
		for i, owner := range owners(g, 5000) {
			if before[i] != 2 {
				require.Equal(t, before[i], owner)
			} else {
				moved[owner]++
			}
		}
		require.Zero(t, moved[2])
		for i, count := range moved {
			if i != 2 {
				require.Greater(t, count, 5000/8/7/2, "%v", moved)
			}
		}
		g.down = 0
		require.Equal(t, before, owners(g, 5000), "and gets them back")
	}
}

// naiveOwner is the provider with the largest −weight/ln(u).
func naiveOwner(key string, all []choice.Profile, g *group) int {
	best, most := -1, 0.0
	v := g.set.With(g.look())
	for i, p := range all {
		u := (float64(choice.Mix(selection.Hash(key)^v.ID(i))>>11) + 0.5) / (1 << 53)
		if score := -p.Weight / math.Log(u); v.Eligible(i) && (best < 0 || score > most) {
			best, most = i, score
		}
	}
	return best
}

func TestSticky_AgreesWithANaiveModel(t *testing.T) {
	t.Parallel()
	for _, equal := range []bool{true, false} {
		all := profiles(9, func(i int, p *choice.Profile) {
			if p.Weight = 1; !equal {
				p.Weight = float64(1 + i%3)
			}
		})
		g := newGroup(selection.Request{}, selection.Policy{}, all...)
		for i := range uint64(2000) {
			g.key, g.down = fmt.Sprint("key", i), i%500
			require.Equal(t, naiveOwner(g.key, all, g), g.pick(selectors.Sticky()))
		}
	}
}

func TestSticky_FailoverFollowsTheOrderOfTheKey(t *testing.T) {
	t.Parallel()
	g := newGroup(selection.Request{}, selection.Policy{}, profiles(4, nil)...)
	g.key = "session"
	var given []int
	for range 4 {
		next := g.again(selectors.Sticky(), given...)
		require.NotContains(t, given, next)
		for _, i := range given {
			g.down |= 1 << uint(i)
		}
		require.Equal(t, g.pick(selectors.Sticky()), next)
		g.down = 0
		given = append(given, next)
	}
}

func TestSticky_QueryKeyPrecedesContextKey(t *testing.T) {
	t.Parallel()
	g := newGroup(selection.Request{}, selection.Policy{}, profiles(50, nil)...)
	pick := func(ctx context.Context, key string) int {
		look := g.look()
		look.Context, look.Key = ctx, key
		return selectors.Sticky().Selector().Pick(g.set.With(look))
	}
	ctx := selection.WithKey(t.Context(), "a")
	require.Equal(t, pick(t.Context(), "a"), pick(ctx, ""))
	require.Equal(t, pick(t.Context(), "b"), pick(ctx, "b"))
	require.NotEqual(t, pick(ctx, ""), pick(ctx, "b"))
}

func TestSticky_DistributesRequestsWithoutAKey(t *testing.T) {
	t.Parallel()
	g := newGroup(selection.Request{}, selection.Policy{}, profiles(4, func(i int, p *choice.Profile) { p.Weight = float64(1 + i) })...)
	requireShares(t, []float64{0.1, 0.2, 0.3, 0.4}, g.shares(selectors.Sticky(), 4000))
}
