package pick_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/pick"
)

// unhealthy returns a plan that nothing is eligible in.
func unhealthy(f *fixture) *pick.Plan {
	p := f.plan()
	for i := range p.Len() {
		p.Set(i, false, false)
	}
	return p
}

func TestPickAmong_PicksWhateverKeepsCallsAway(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		f    *fixture
		want []int // of picks in a row
	}{
		"takes turns":                {of(fallback(1), roundRobin(4), roundRobin(1)), []int{2, 4, 2}},
		"takes turns and is watched": {of(fallback(1), roundRobin(4), roundRobin(1)).records(), []int{2, 4, 2}},
		"has a selector":             {of(fallback(1), chosen(4, last), roundRobin(1)), []int{4, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := unhealthy(row.f)
			for n, want := range row.want {
				require.Equal(t, row.want[n], p.PickAmong([]int{0, 2, 4, 5}, 1, pick.Peek, nil), "a look takes no turn")
				require.Equal(t, want, p.PickAmong([]int{0, 2, 4, 5}, 1, pick.Advance, nil))
			}
			require.Equal(t, 1, p.PickAmong([]int{1}, 1, pick.Advance, nil), "the first of its tier")
			require.Equal(t, -1, p.PickAmong([]int{0, 5}, 1, pick.Advance, nil), "those of other tiers do not count")
			require.Equal(t, -1, p.PickAmong(nil, 1, pick.Advance, nil))
			require.Equal(t, -1, p.First(p.Healthy, true), "it makes none eligible")
		})
	}
}

func TestPickAmong_PicksNoneFromATierInOrder(t *testing.T) {
	t.Parallel()
	for _, f := range []*fixture{of(fallback(2), roundRobin(2)), of(fallback(2)).records()} {
		p := unhealthy(f)
		require.Equal(t, -1, p.PickAmong([]int{0, 1}, 0, pick.Advance, nil))
		require.Empty(t, f.decisions)
	}
}
