package registrytest_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

func TestNewView_ShowsWhatItsCandidatesAre(t *testing.T) {
	t.Parallel()
	view := registrytest.NewView(
		selection.Request{Service: "chat", Near: "eu-west-1", Prefer: []string{"tools"}},
		registrytest.Candidate{
			Name: "a", Version: "v1", Region: "eu-west-1", Tags: []string{"gpu"}, Capabilities: []string{"tools"},
			Metadata: map[string]string{"owner": "me"}, Weight: 2, Cost: 3, Latency: time.Second, InFlight: 4,
		},
		registrytest.Candidate{Name: "b"},
		registrytest.Candidate{Name: "c", Down: true},
	)
	require.Equal(t, []bool{true, true, false}, []bool{view.Eligible(0), view.Eligible(1), view.Eligible(2)})
	a, b := view.At(0), view.At(1)
	require.Equal(t, []any{"a", "v1", "eu-west-1", true, true, "me", 2.0, 3.0, 4, 1.0, 1.0},
		[]any{a.Name(), a.Version(), a.Region(), a.HasTag("gpu"), a.HasCapability("tools"), a.Metadata("owner"), a.Weight(), a.Cost(), a.InFlight(), a.Proximity(), a.Fit()})
	require.InEpsilon(t, time.Second, a.Latency(), 0.001)
	require.False(t, a.Cold())
	require.True(t, b.Cold())
	require.Equal(t, []any{"b", 1.0, 0.5, 0.0}, []any{b.Name(), b.Weight(), b.Proximity(), b.Fit()})
	require.Equal(t, "chat", view.Request().Service)
}

func TestNewView_EachPickTakesATurn(t *testing.T) {
	t.Parallel()
	for _, size := range []int{4, 100} {
		view := registrytest.NewView(selection.Request{}, make([]registrytest.Candidate, size)...)
		picked := make(map[int]int)
		for range 2 * size {
			picked[selectors.WeightedRoundRobin().Selector().Pick(view)]++
		}
		require.Len(t, picked, size)
		for _, times := range picked {
			require.Equal(t, 2, times)
		}
	}
}
