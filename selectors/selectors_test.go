package selectors_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

func TestAll_StrategiesHaveUniqueNamesAndSelectors(t *testing.T) {
	t.Parallel()
	names := make(map[string]bool)
	for _, s := range selectors.All() {
		require.NoError(t, s.Check())
		require.NotNil(t, s.Selector())
		names[s.String()] = true
		_, describes := s.Selector().(selection.Describer)
		require.True(t, describes, "%v can say what it thinks", s)
	}
	require.Len(t, names, 6)
}

func TestPick_ReturnsEligibleCandidatesOnly(t *testing.T) {
	t.Parallel()
	for _, s := range selectors.All() {
		for seed := range uint64(100) {
			random := rand.New(rand.NewPCG(seed, 5))
			g := randomScores(random)
			for range 50 {
				g.key = []string{"", "k"}[random.IntN(2)]
				g.now += time.Duration(random.IntN(int(time.Second)))
				i := g.pick(s)
				require.True(t, i >= 0 && i < g.set.Len() && g.down>>uint(i)&1 == 0, "%v picked %d", s, i)
			}
		}
	}
}

func TestPick_LargeGroupsBehaveLikeSmallOnes(t *testing.T) {
	t.Parallel()
	for _, s := range selectors.All() {
		g := newGroup(selection.Request{}, selection.Policy{}, profiles(1000, func(i int, p *choice.Profile) { p.Weight = float64(i % 3) })...)
		g.down = ^uint64(0) // the first 64
		for range 300 {
			i := g.pick(s)
			require.True(t, i >= 64 && i < 1000, "%v picked %d", s, i)
		}
	}
}

func TestPick_PeekPredictsThePickAndChangesNothing(t *testing.T) {
	t.Parallel()
	for _, s := range selectors.All() {
		for seed := range uint64(30) {
			random := rand.New(rand.NewPCG(seed, 6))
			g := randomScores(random)
			for range 30 {
				before := g.cursor.Turns()
				foretold := g.peek(s)
				require.Equal(t, foretold, g.peek(s))
				for i := range g.set.Len() {
					describe(g, s, i)
				}
				require.Equal(t, before, g.cursor.Turns())
				require.Equal(t, foretold, g.pick(s), "%v", s)
			}
		}
	}
}

func TestPick_GivesACallEachCandidateOnce(t *testing.T) {
	t.Parallel()
	for _, s := range selectors.All() {
		random := rand.New(rand.NewPCG(1, 7))
		for range 20 {
			g := randomScores(random)
			g.down = 0
			given := []int{g.pick(s)}
			turns := g.cursor.Turns()
			for len(given) < g.set.Len() {
				next := g.again(s, given...)
				require.NotContains(t, given, next)
				given = append(given, next)
			}
			require.Equal(t, turns, g.cursor.Turns(), "a call takes one turn, however often it fails over")
		}
	}
}
