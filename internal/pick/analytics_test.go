package pick_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
)

func TestSums_DivideTheAttemptsAndNameEachGroupOnce(t *testing.T) {
	t.Parallel()
	var sums pick.Sums
	require.Zero(t, sums.Result())
	first, second := &pick.Group{}, &pick.Group{}
	sums.Add(first, selection.Share{Provider: "a", Attempts: 3, TookOver: 1})
	sums.Add(second, selection.Share{Provider: "b"})
	sums.Add(first, selection.Share{Provider: "mock", Attempts: 1, TookOver: 1})
	all := sums.Result()
	require.EqualValues(t, 4, all.Attempts)
	require.EqualValues(t, 2, all.Failovers)
	require.Len(t, all.Groups, 2)
	require.Equal(t, []float64{0.75, 0, 0.25}, []float64{all.Providers[0].Share, all.Providers[1].Share, all.Providers[2].Share})
}
