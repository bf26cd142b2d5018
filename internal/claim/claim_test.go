package claim_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/claim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// In each state every event has one outcome.
func TestSet_Transitions(t *testing.T) {
	t.Parallel()
	states := map[string]func(s *claim.Set[string]){
		"unknown":    func(*claim.Set[string]) {},
		"free":       func(s *claim.Set[string]) { s.Claim("a"); s.Release("a") },
		"entering":   func(s *claim.Set[string]) { s.Claim("a") },
		"leased":     func(s *claim.Set[string]) { s.Claim("a"); s.Enter("a") },
		"over":       func(s *claim.Set[string]) { s.Claim("a"); s.Enter("a"); s.Release("a") },
		"reentering": func(s *claim.Set[string]) { s.Claim("a"); s.Enter("a"); s.Release("a"); s.Reclaim("a") },
	}
	for _, row := range []struct {
		state          string
		claim, reclaim bool // their results
		has, entered   bool
		afterEnter     bool // entered
		afterRelease   bool // has
	}{
		{state: "unknown", claim: true, reclaim: true},
		{state: "free", claim: true, reclaim: true},
		{state: "entering", has: true, afterEnter: true},
		{state: "leased", has: true, entered: true, afterEnter: true, afterRelease: true},
		{state: "over", reclaim: true, has: true, entered: true, afterEnter: true, afterRelease: true},
		{state: "reentering", has: true, entered: true, afterEnter: true, afterRelease: true},
	} {
		in := func() *claim.Set[string] {
			s := &claim.Set[string]{}
			states[row.state](s)
			return s
		}
		require.Equal(t, row.claim, in().Claim("a"), row.state)
		require.Equal(t, row.reclaim, in().Reclaim("a"), row.state)
		require.Equal(t, row.has, in().Has("a"), row.state)
		require.Equal(t, row.entered, in().Entered("a"), row.state)
		s := in()
		s.Enter("a")
		require.Equal(t, row.afterEnter, s.Entered("a"), row.state)
		s = in()
		s.Release("a")
		require.Equal(t, row.afterRelease, s.Has("a"), row.state)
	}
}

func TestSet_TargetIsClaimedByOneSearchAtATime(t *testing.T) {
	t.Parallel()
	var s claim.Set[int]
	require.True(t, s.Claim(1))
	require.False(t, s.Claim(1))
	require.False(t, s.Reclaim(1))
	s.Enter(1)
	require.False(t, s.Reclaim(1), "a lease goes on")
	s.Release(1)
	require.False(t, s.Claim(1), "the call had it")
	require.True(t, s.Reclaim(1))
	require.False(t, s.Reclaim(1))
	s.Release(1)
	require.True(t, s.Entered(1), "a claim that was given up does not undo the lease before")
	require.True(t, s.Reclaim(1))
	s.Enter(1)
	require.False(t, s.Reclaim(1))
	s.Enter(2)
	s.Release(2)
	require.False(t, s.Has(2), "there is no claim on it")
}

func TestSet_ReleaseBeforeEnterIsNotEntered(t *testing.T) {
	t.Parallel()
	var s claim.Set[int]
	s.Claim(1)
	s.Release(1)
	s.Enter(1)
	require.False(t, s.Entered(1))
	require.True(t, s.Claim(1))
}

func TestAll_YieldsTargetsInOrderOfTheirClaims(t *testing.T) {
	t.Parallel()
	var s claim.Set[int]
	require.Empty(t, slices.Collect(s.All()))
	const many = 20 // more than stand inline
	for i := range many {
		require.True(t, s.Claim(i))
	}
	s.Enter(3)
	s.Release(3)
	s.Release(5)
	all := slices.Collect(s.All())
	require.Len(t, all, many-1)
	require.Contains(t, all, 3)
	require.NotContains(t, all, 5)
	require.IsIncreasing(t, all)
	for target := range s.All() {
		require.Zero(t, target)
		break
	}
}

func TestSet_FewClaimsAllocateNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun
	s := new(claim.Set[int])
	require.Zero(t, testing.AllocsPerRun(100, func() {
		*s = claim.Set[int]{}
		for i := range 4 {
			s.Claim(i)
			s.Enter(i)
		}
	}))
}

// A script of random events keeps two promises: at most one search or lease has a target, and
// what was entered remains known.
func TestSet_RandomScriptKeepsPromises(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		var s claim.Set[int]
		taken, was := map[int]bool{}, map[int]bool{}
		for range 100 {
			target := random.IntN(6)
			switch random.IntN(4) {
			case 0:
				want := !taken[target] && !was[target]
				require.Equal(t, want, s.Claim(target))
				taken[target] = taken[target] || want
			case 1:
				want := !taken[target]
				require.Equal(t, want, s.Reclaim(target))
				taken[target] = true
			case 2:
				s.Enter(target)
				was[target] = was[target] || taken[target]
			default:
				s.Release(target)
				taken[target] = false
			}
			require.Equal(t, taken[target] || was[target], s.Has(target))
			require.Equal(t, was[target], s.Entered(target))
		}
	}
}
