package registryprom_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	registryprom "github.com/capreg/registry/contrib/prometheus"
)

// lines returns the series of a gatherer as text, in order, since registries sort what collectors send.
func lines(t *testing.T, from prometheus.Gatherer) []string {
	t.Helper()
	families, err := from.Gather()
	require.NoError(t, err)
	require.True(t, slices.IsSortedFunc(families, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) }))
	var text strings.Builder
	for _, family := range families {
		_, err := expfmt.MetricFamilyToText(&text, family)
		require.NoError(t, err)
	}
	return steady(text.String())
}

// steady returns the lines of a text in order, without the moment at which a provider comes back, which is now and what is
// left until then: it can be a millisecond later in the next reading.
func steady(text string) (all []string) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "registry_provider_back_timestamp_seconds{") {
			line, _, _ = strings.Cut(line, "} ")
		}
		all = append(all, line)
	}
	slices.Sort(all)
	return all
}

func TestGather_GivesWhatARegistryGathers(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]registryprom.Options{
		"all":       {},
		"bounded":   {MaxProviders: 2},
		"exemplars": {Exemplar: func(context.Context) prometheus.Labels { return prometheus.Labels{"trace_id": "a"} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, err := registry.New(registry.Options{})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, reg.Close(context.Background())) })
			collector := registryprom.New(reg, options)
			registered := prometheus.NewPedanticRegistry()
			require.NoError(t, registered.Register(collector))
			require.Equal(t, lines(t, registered), lines(t, collector), "without providers")
			for i := range 4 {
				add(t, reg, fmt.Sprint("p", i), []error{errors.New("down"), nil}[i%2])
			}
			for range 20 {
				require.NoError(t, ask(reg))
			}
			require.Equal(t, lines(t, registered), lines(t, collector))
			problems, err := testutil.GatherAndLint(collector)
			require.NoError(t, err)
			require.Empty(t, problems)
		})
	}
}
