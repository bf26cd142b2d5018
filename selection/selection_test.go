package selection_test

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
)

func TestStrategy_MarshalsAsItsName(t *testing.T) {
	t.Parallel()
	pick := selection.Func(func(selection.View) int { return 0 })
	own := selection.New("MINE", pick)
	for _, s := range []selection.Strategy{{}, selection.Fallback(), selection.RoundRobin(), own} {
		text, err := json.Marshal(s)
		require.NoError(t, err)
		var back selection.Strategy
		require.NoError(t, json.Unmarshal(text, &back))
		require.True(t, s.Same(back))
		require.Equal(t, s.String(), back.String())
		require.Equal(t, s.IsZero(), back.IsZero())
		require.Equal(t, s.String() == "MINE", back.Named(), "only a name came along")
		require.False(t, s.Named())
	}
	require.Equal(t, 0, own.Selector().Pick(selection.View{}))
	require.Nil(t, selection.Fallback().Selector())
	require.Nil(t, selection.Strategy{}.Selector())
	require.True(t, own.Same(selection.New("MINE", nil)), "the name is what counts")
	require.False(t, own.Same(selection.Strategy{}))
	kept := own
	for _, bad := range []string{" x", "a\nb", "\xff", "\x00"} {
		require.Error(t, kept.UnmarshalText([]byte(bad)), "%q", bad)
		require.True(t, kept.Same(own), "it has changed nothing")
		_, err := selection.New(bad, pick).MarshalText()
		require.Error(t, err)
	}
	require.NoError(t, kept.UnmarshalText([]byte("fallback")))
	require.Equal(t, selection.Fallback(), kept)
}

func TestProximity_IsTheShareOfCommonLabels(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		near, region string
		want         float64
	}{
		{"", "", 1},
		{"", "eu", 1},
		{"eu-west-1", "eu-west-1", 1},
		{"eu-west-1", "eu-west-2", 2.0 / 3},
		{"eu-west-1", "eu-north-1", 1.0 / 3},
		{"eu-west-1", "us-west-1", 0},
		{"eu-west-1", "eu", 1.0 / 3},
		{"eu", "eu-west-1", 1},
		{"eu", "", 0.5},
		{"eu-west", "euro-west", 0},
	} {
		set := selection.Request{Near: c.near}.View(selection.Policy{}, []choice.Member{{Profile: choice.Profile{Region: c.region}}})
		require.InDelta(t, c.want, set.At(0).Proximity(), 1e-9, "%+v", c)
	}
}

// naiveSpill is the formula, step by step, in percent of many numbers.
func naiveSpill(spill float64, eligible, members []int) (shares []float64) {
	health := make([]float64, len(eligible))
	sum := 0.0
	for i := range eligible {
		if members[i] > 0 {
			health[i] = min(1, spill*float64(eligible[i])/float64(members[i]))
		}
		sum += health[i]
	}
	left := 1.0
	for _, h := range health {
		load := 0.0
		if sum > 0 {
			load = min(left, h/min(sum, 1))
		}
		shares, left = append(shares, load), left-load
	}
	return shares
}

func TestSpill_FollowsItsFormula(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 1))
		n := 1 + random.IntN(5)
		eligible, members := make([]int, n), make([]int, n)
		none := true
		for i := range n {
			members[i] = random.IntN(6)
			eligible[i] = random.IntN(members[i] + 1)
			none = none && eligible[i] == 0
		}
		policy := selection.Policy{SpillOver: 1 + random.Float64()}
		const numbers = 2000
		counts := make([]float64, n)
		for k := range numbers {
			first := policy.Spill((float64(k)+0.5)/numbers, eligible, members)
			if none {
				require.Equal(t, -1, first)
				continue
			}
			require.Positive(t, eligible[first])
			counts[first]++
		}
		if none {
			continue
		}
		for i, share := range naiveSpill(policy.SpillOver, eligible, members) {
			require.InDelta(t, share, counts[i]/numbers, 2.0/numbers, "%v of %v", eligible, members)
		}
	}
}

func TestMayEject_AlwaysAllowsOneOfAGroup(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cap          float64
		out, members int
		want         bool
	}{
		{0, 99, 100, true}, {0.1, 0, 1, true}, {0.1, 0, 100, true}, {0.1, 1, 10, false}, {0.2, 1, 10, true}, {0.5, 1, 4, true}, {0.5, 2, 4, false}, {1, 3, 4, true},
	} {
		require.Equal(t, c.want, selection.Policy{MaxEjected: c.cap}.MayEject(c.out, c.members), "%+v", c)
	}
}

func TestPerformanceHere_PrefersTheKindOfQuery(t *testing.T) {
	t.Parallel()
	v, here, elsewhere := choice.NewVitals(0, 0), &choice.Track{}, &choice.Track{}
	look := func(track *choice.Track) selection.Candidate {
		set := selection.Request{}.View(selection.Policy{}, []choice.Member{{Vitals: v, Context: track}})
		view := set.With(choice.Input{Mask: 1, Now: time.Second})
		return view.At(0)
	}
	require.True(t, look(here).Cold())
	v.Begin()
	v.End(time.Second, 10*time.Millisecond, choice.Answered, elsewhere)
	latency, _ := look(here).PerformanceHere()
	require.InDelta(t, 10e6, latency, 1)
	v.Begin()
	v.End(time.Second, 500*time.Millisecond, choice.Answered, here)
	latency, _ = look(here).PerformanceHere()
	require.InDelta(t, 500e6, latency, 100)
	latency, _ = look(elsewhere).PerformanceHere()
	require.InDelta(t, 10e6, latency, 1)
	require.Equal(t, 500*time.Millisecond, look(elsewhere).Latency())
	require.False(t, look(nil).Cold())
}

// large implements Eligible for a set with more than 64 candidates.
type large []bool

func (l large) Has(i int) bool { return i >= 0 && i < len(l) && l[i] }

func (l large) Next(i int) int {
	for i = max(i, 0); i < len(l); i++ {
		if l[i] {
			return i
		}
	}
	return -1
}

func TestView_ReportsEligibleCandidatesAndDrawsUniformly(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 7, 64, 65, 200} {
		for seed := range uint64(6) {
			random := rand.New(rand.NewPCG(seed, 3))
			all, look := make(large, n), choice.Input{Cursor: choice.NewCursor(seed), Now: 1}
			var eligible []int
			for i := range all {
				if all[i] = random.IntN(1+int(seed%4)) == 0; all[i] {
					eligible = append(eligible, i)
					look.Mask |= 1 << uint(i%64)
				}
			}
			if n > 64 {
				look.Mask, look.Large = 0, all
			}
			set := selection.Request{}.View(selection.Policy{}, make([]choice.Member, n))
			v := set.With(look)
			require.Equal(t, []int{n, len(eligible)}, []int{v.Len(), v.Count()})
			for i := range n + 1 {
				require.Equal(t, all.Has(i), v.Eligible(i))
				require.Equal(t, all.Next(i), v.Next(i))
			}
			mask, ok := v.Mask()
			require.Equal(t, n <= 64, ok)
			require.Equal(t, look.Mask, mask)
			requireUniformDraws(t, set, look, eligible)
		}
	}
}

func requireUniformDraws(t *testing.T, set selection.View, look choice.Input, eligible []int) {
	t.Helper()
	if len(eligible) == 0 {
		v := set.With(look)
		first, second := v.DrawTwo()
		require.Equal(t, [3]int{-1, -1, -1}, [3]int{v.Draw(), first, second})
		return
	}
	picks := 100 * len(eligible)
	counts := make(map[int]int)
	for range picks {
		v := set.With(look)
		first, second := v.DrawTwo()
		require.True(t, v.Eligible(first))
		counts[first]++
		if len(eligible) == 1 {
			require.Equal(t, -1, second)
			continue
		}
		require.True(t, v.Eligible(second))
		require.NotEqual(t, first, second)
		counts[second]++
	}
	mean := float64(picks) * 2 / float64(len(eligible))
	if len(eligible) == 1 {
		mean = float64(picks)
	}
	for _, i := range eligible {
		require.InDelta(t, mean, counts[i], 6*math.Sqrt(mean)+1e-9)
	}
}

func TestKeyFrom_ReturnsTheKeyOfTheContext(t *testing.T) {
	t.Parallel()
	require.Empty(t, selection.KeyFrom(t.Context()))
	require.Empty(t, selection.KeyFrom(nil)) //nolint:staticcheck // a look-up may have none
	ctx := selection.WithKey(t.Context(), "a")
	require.Equal(t, "a", selection.KeyFrom(ctx))
	require.Equal(t, "b", selection.KeyFrom(selection.WithKey(ctx, "b")))
	set := selection.Request{}.View(selection.Policy{}, nil)
	v := set.With(choice.Input{})
	require.Equal(t, context.Background(), v.Context())
	require.Empty(t, v.Key())
}

func TestHash_IsTheSameInEveryProcess(t *testing.T) {
	t.Parallel()
	// As written down once: other values would move every session.
	require.Equal(t, uint64(0xf52a15e9a9b5e89b), selection.Hash(""))
	require.NotEqual(t, selection.Hash("a"), selection.Hash("b"))
	id := func(p choice.Profile) uint64 {
		v := selection.Request{}.View(selection.Policy{}, []choice.Member{{Profile: p}})
		return v.ID(0)
	}
	require.NotEqual(t, id(choice.Profile{Service: "ab", Name: "c"}), id(choice.Profile{Service: "a", Name: "bc"}))
}

func TestRequirements_String(t *testing.T) {
	t.Parallel()
	r := selection.Requirements{
		MaxLatency: time.Second, MaxCost: 2, MinVersion: "1.2", Tags: []string{"a", "b"}, Regions: []string{"eu", "us"}, Exclude: []string{"x"},
	}
	require.Equal(t, "within 1s, costing at most 2, from version 1.2, tagged a, b, in eu or us, without x", r.String())
	require.Empty(t, selection.Requirements{}.String())
	copied := r.Clone()
	copied.Tags[0] = "!"
	require.Equal(t, "a", r.Tags[0])
	for field, bad := range map[string]selection.Requirements{
		"MaxLatency": {MaxLatency: -1}, "MaxCost": {MaxCost: math.NaN()}, "MinVersion": {MinVersion: "\xff"},
	} {
		got, _, bound := bad.Check()
		require.Equal(t, field, got)
		require.NotEmpty(t, bound)
	}
}

func TestRamp_FollowsItsFormula(t *testing.T) {
	t.Parallel()
	policy := selection.Policy{SlowStart: 100 * time.Second, SlowStartFloor: 0.05, SlowStartAggression: 2}
	v := choice.NewVitals(time.Hour, 0)
	set := selection.Request{}.View(policy, []choice.Member{{Profile: choice.Profile{Weight: 4}, Vitals: v}})
	for after, want := range map[time.Duration]float64{0: 0.05, 25 * time.Second: 0.5, 81 * time.Second: 0.9, 100 * time.Second: 1, time.Hour: 1} {
		view := set.With(choice.Input{Mask: 1, Now: time.Hour + after})
		require.InDelta(t, want, view.At(0).Ramp(), 1e-9, "%v", after)
		require.InDelta(t, 4*want, view.Weight(0), 1e-9)
		require.InDelta(t, 4, view.At(0).FullWeight(), 0)
		require.Equal(t, after, view.At(0).RecoveredFor())
		require.False(t, view.EqualWeights())
	}
}
