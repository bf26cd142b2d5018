package check_test

import (
	"cmp"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/check"
)

func TestRange_Text(t *testing.T) {
	t.Parallel()
	for want, bound := range map[string]interface{ String() string }{
		"0 or more":                           check.Range[int]{},
		"0 to 100":                            check.Range[int]{Max: 100},
		"0 (default 10) to 2147483647":        check.Range[int]{Default: 10, Max: math.MaxInt32},
		"0 (none) or more":                    check.Range[int]{Zero: "none"},
		"0 (usual) to 9":                      check.Range[int]{Zero: "usual", Default: 5, Max: 9},
		"0 (default 0.1), or 0.001 to 1":      check.Range[float64]{Default: 0.1, Min: 0.001, Max: 1},
		"0, or 1 or more":                     check.Range[float64]{Min: 1},
		"0 (default 0.5) to 2147483647 a day": check.Range[float64]{Default: 0.5, Max: math.MaxInt32, Suffix: " a day"},
		"0 (default 30s) or more":             check.Range[time.Duration]{Default: 30 * time.Second},
		"0 (default 1m0s) to 24h0m0s":         check.Range[time.Duration]{Default: time.Minute, Max: 24 * time.Hour},
	} {
		require.Equal(t, want, bound.String())
	}
}

func TestRange_HasZeroAndFiniteNumbersWithinBounds(t *testing.T) {
	t.Parallel()
	infinite, negative := math.Inf(1), math.Copysign(0, -1)
	for _, row := range []struct {
		allowed check.Range[float64]
		within  []float64
		beyond  []float64
	}{
		{check.Range[float64]{}, []float64{0, negative, 1e-300, math.MaxFloat64}, []float64{-1e-300, -infinite, infinite, math.NaN()}},
		{check.Range[float64]{Max: 1}, []float64{0, 0.5, 1}, []float64{-0.1, 1.01, infinite, math.NaN()}},
		{check.Range[float64]{Min: 1}, []float64{0, 1, 2}, []float64{-1, 0.9, infinite, math.NaN()}},
		{check.Range[float64]{Min: 1, Max: 2}, []float64{0, 1, 2}, []float64{-1, 0.9, 2.1, -infinite, math.NaN()}},
	} {
		for _, value := range row.within {
			require.Nil(t, row.allowed.Check("F", value), "%v: %v", row.allowed, value)
		}
		for _, value := range row.beyond {
			v := row.allowed.Check("F", value)
			require.NotNil(t, v, "%v: %v", row.allowed, value)
			require.Equal(t, row.allowed.String(), v.Bound)
		}
	}
	require.Nil(t, check.Range[int]{}.Check("F", math.MaxInt))
	require.NotNil(t, check.Range[int]{}.Check("F", math.MinInt))
	require.Equal(t, &check.Violation{Field: "F", Value: "-1ns", Bound: "0 or more"}, check.Range[time.Duration]{}.Check("F", -1))
}

func TestRange_FillReplacesOnlyZero(t *testing.T) {
	t.Parallel()
	allowed := check.Range[int]{Default: 10, Max: 20}
	for given, want := range map[int]int{0: 10, 1: 1, 20: 20} {
		value := given
		require.Nil(t, allowed.Fill("F", &value))
		require.Equal(t, want, value)
	}
	refused := 21
	require.Equal(t, &check.Violation{Field: "F", Value: "21", Bound: "0 (default 10) to 20"}, allowed.Fill("F", &refused))
	require.Equal(t, 21, refused)
}

// Policies are checked whenever a provider is registered.
func TestRange_AllocatesNothingForWhatIsAllowed(t *testing.T) {
	count, wait, words := 0, time.Duration(0), []string{"a", "b"}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		count, wait = 0, 0
		if cmp.Or(
			check.Range[int]{Default: 1000, Max: 2000}.Fill("F", &count),
			check.Range[time.Duration]{Default: time.Hour}.Fill("F", &wait),
			check.Name("F", "name"), check.Names("F", words), check.Text("F", "text"),
		) != nil {
			panic("refused")
		}
	}))
}
