package pick_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
)

func TestPlan_AsksForMeasurementsOnlyWhereTheyAreNeeded(t *testing.T) {
	t.Parallel()
	f := of(roundRobin(2)).records()
	f.plan()
	require.Empty(t, f.vitals)
	f = of(chosen(2, last))
	f.plan()
	require.Len(t, f.vitals, 2)
}

func TestDecisions_CountTheEligibleOfALargeTierFromTheFirstOn(t *testing.T) {
	t.Parallel()
	for _, first := range []bool{true, false} {
		f := of(roundRobin(70)).records()
		p := f.plan()
		p.Set(0, first, first)
		it := p.Iterate(p.Healthy)
		it.Next(nil)
		want := 69
		if first {
			want = 70
		}
		require.Equal(t, want, f.decisions[0].Eligible)
	}
}

func TestSelector_ThatPanicsHasNoSayWhereTheFirstIsNotEligible(t *testing.T) {
	t.Parallel()
	for _, size := range []int{3, 100} {
		f := of(chosen(size, func(selection.View) int { panic("ouch") }))
		f.config.Tiers[0].Faults = &pick.Faults{}
		p := f.plan()
		p.Set(0, false, false)
		it := p.Iterate(p.Healthy)
		require.Equal(t, 1, it.Next(nil))
		require.EqualValues(t, 1, f.config.Tiers[0].Faults.Count(pick.Panicked))
		require.Zero(t, f.config.Tiers[0].Faults.Count(pick.OutOfRange), "it gave no answer")
	}
}
