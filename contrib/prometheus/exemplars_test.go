package registryprom_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	registryprom "github.com/capreg/registry/contrib/prometheus"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

// trace is the key of the trace in a context.
type trace struct{}

func traceOf(ctx context.Context) prometheus.Labels {
	if id, sampled := ctx.Value(trace{}).(string); sampled {
		return prometheus.Labels{"trace_id": id}
	}
	return nil
}

// traced calls within a trace.
func traced(t *testing.T, reg *registry.Registry, id string) error {
	t.Helper()
	ctx := context.WithValue(t.Context(), trace{}, id)
	return models.Bind(reg, registry.Query{}).Do(ctx, func(_ context.Context, model func() error) error { return model() })
}

// exemplarsOf returns the traces of the exemplars of a histogram, those of its buckets and those of the native one.
func exemplarsOf(m *dto.Metric) (classic, native []string) {
	for _, b := range m.GetHistogram().GetBucket() {
		if e := b.GetExemplar(); e != nil {
			classic = append(classic, e.GetLabel()[0].GetValue())
		}
	}
	for _, e := range m.GetHistogram().GetExemplars() {
		native = append(native, e.GetLabel()[0].GetValue())
	}
	return classic, native
}

func TestExemplars_AreTheLatestSampledTraces(t *testing.T) {
	t.Parallel()
	reg, gatherer := newRegistry(t, registryprom.Options{Exemplar: traceOf})
	failing := verdict.As(errors.New("down"), verdict.Verdict{Class: verdict.ClassServerError})
	a := add(t, reg, "a", failing)
	add(t, reg, "b", nil)
	require.NoError(t, ask(reg), "not sampled")
	classic, _ := exemplarsOf(gather(t, gatherer, "registry_call_duration_seconds")["error_type=,service=llm"])
	require.Empty(t, classic)

	require.NoError(t, traced(t, reg, "one"))
	require.NoError(t, traced(t, reg, "two"))
	require.NoError(t, traced(t, reg, strings.Repeat("long", 100)), "its labels are left out")
	attempts := gather(t, gatherer, "registry_attempt_duration_seconds")
	for what, m := range map[string]*dto.Metric{
		"calls":    gather(t, gatherer, "registry_call_duration_seconds")["error_type=,service=llm"],
		"attempts": attempts["error_type=,provider=b,service=llm"],
		"failures": attempts["error_type=server error,provider=a,service=llm"],
	} {
		classic, native := exemplarsOf(m)
		require.Contains(t, classic, "two", what)
		require.Equal(t, classic, native, what)
	}
	to := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept", "application/openmetrics-text")
	promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(to, request)
	require.True(t, strings.Contains(to.Body.String(), `# {trace_id="two"}`)) //nolint:testifylint // it is long

	require.NoError(t, a.Unregister(t.Context()))
	require.NotEmpty(t, gather(t, gatherer, "registry_calls_total"))
	add(t, reg, "a", failing)
	require.NoError(t, ask(reg))
	classic, _ = exemplarsOf(gather(t, gatherer, "registry_attempt_duration_seconds")["error_type=server error,provider=a,service=llm"])
	require.Empty(t, classic, "they leave with their provider")
}

func TestExemplars_OfAttemptsAreTheLatestOfTheirOwnBuckets(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		collector := registryprom.New(reg, registryprom.Options{Exemplar: traceOf})
		var takes time.Duration
		_, err := models.Register(t.Context(), reg, registry.Provider[func() error]{Name: "a", Instance: func() error {
			time.Sleep(takes)
			return nil
		}})
		require.NoError(t, err)
		for _, takes = range []time.Duration{6 * time.Millisecond, 15 * time.Millisecond, 7 * time.Millisecond} {
			require.NoError(t, traced(t, reg, takes.String()))
		}
		calls, _ := exemplarsOf(gather(t, collector, "registry_call_duration_seconds")["error_type=,service=llm"])
		require.Equal(t, []string{"7ms", "15ms"}, calls)
		attempts, _ := exemplarsOf(gather(t, collector, "registry_attempt_duration_seconds")["error_type=,provider=a,service=llm"])
		require.Equal(t, []string{"7ms"}, attempts, "their bucket is from 5 to 20 ms")
	})
}

func TestExemplars_CallsWithoutAProviderHaveThem(t *testing.T) {
	t.Parallel()
	reg, gatherer := newRegistry(t, registryprom.Options{Exemplar: traceOf})
	a := add(t, reg, "a", nil)
	require.NoError(t, a.MarkUnhealthy(errors.New("maintenance")))
	require.Error(t, traced(t, reg, "lost"))
	classic, _ := exemplarsOf(gather(t, gatherer, "registry_call_duration_seconds")["error_type="+verdict.ClassCannot.String()+",service=llm"])
	require.Equal(t, []string{"lost"}, classic)
}

func TestExemplars_OfNoRegistryAreNone(t *testing.T) {
	t.Parallel()
	gatherer := prometheus.NewRegistry()
	require.NoError(t, gatherer.Register(registryprom.New(nil, registryprom.Options{Exemplar: traceOf})))
	require.NotEmpty(t, gather(t, gatherer, "registry_draining_providers"))
}
