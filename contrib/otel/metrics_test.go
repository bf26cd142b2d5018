package registryotel_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	api "go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/capreg/registry"
	registryotel "github.com/capreg/registry/contrib/otel"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

// reading reads the metrics of a registry.
type reading struct {
	t        *testing.T
	reader   *metric.ManualReader
	observer *registryotel.Observer
}

func observeMetrics(t *testing.T, reg *registry.Registry, most int) *reading {
	t.Helper()
	reader := metric.NewManualReader()
	observer, err := registryotel.Observe(reg, registryotel.Options{
		MeterProvider: metric.NewMeterProvider(metric.WithReader(reader)), MaxProviders: most,
	})
	require.NoError(t, err)
	return &reading{t, reader, observer}
}

// all returns the values by name and attributes, such as "calls service.name=chat".
func (r *reading) all() map[string]float64 {
	r.t.Helper()
	var collected metricdata.ResourceMetrics
	require.NoError(r.t, r.reader.Collect(context.Background(), &collected))
	values := make(map[string]float64)
	put := func(name string, attributes attribute.Set, value float64) {
		words := []string{strings.TrimPrefix(name, "registry.")}
		for _, a := range attributes.ToSlice() {
			words = append(words, strings.TrimPrefix(string(a.Key), "registry.")+"="+a.Value.String())
		}
		values[strings.Join(words, " ")] = value
	}
	for _, scope := range collected.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					put(m.Name, p.Attributes, float64(p.Value))
				}
			case metricdata.Sum[float64]:
				for _, p := range data.DataPoints {
					put(m.Name, p.Attributes, p.Value)
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					put(m.Name, p.Attributes, float64(p.Value))
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					put(m.Name, p.Attributes, p.Value)
				}
			default:
				require.Fail(r.t, "unknown data", "%T of %s", data, m.Name)
			}
		}
	}
	return values
}

func TestObserve_MetricsAreThoseOfTheRegistry(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := observeMetrics(t, reg, 0)
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(failsAs(verdict.ClassServerError))})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.Takes("b", 30*time.Millisecond), Limits: registry.LimitPolicy{MaxConcurrent: 7}})
		ask := func(ctx context.Context, m testkit.ChatModel) (string, error) { return m.Chat(ctx, "") }
		for range 20 {
			_, err := registry.Call(t.Context(), testkit.Bind(reg), ask)
			require.NoError(t, err)
		}
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		_, err = testkit.Chat.Get(t.Context(), reg, registry.Query{Require: []string{"unheard-of"}})
		require.Error(t, err)

		values := r.all()
		for key, want := range map[string]float64{
			"calls service.name=chat":                                                  20,
			"call.attempts service.name=chat":                                          20 + float64(a.Info().Attempts),
			"call.durations le=0.005 service.name=chat":                                0,
			"call.durations le=0.04 service.name=chat":                                 20,
			"call.durations le=+Inf service.name=chat":                                 20,
			"lookup.hits service.name=chat":                                            21,
			"lookup.misses service.name=chat":                                          1,
			"lookup.failures reason=capability_missing service.name=chat":              1,
			"service.eligible_providers service.name=chat":                             1,
			"priority_group.active service.name=chat":                                  0,
			"attempts error.type=server error provider.name=a service.name=chat":       float64(a.Info().Failures),
			"attempts provider.name=a service.name=chat":                               0,
			"attempts provider.name=b service.name=chat":                               20,
			"attempt.active provider.name=b service.name=chat":                         1,
			"attempt.durations le=0.04 provider.name=b service.name=chat":              20,
			"selections provider.name=b reason=failover service.name=chat":             float64(a.Info().Attempts),
			"circuit_breaker.status provider.name=a service.name=chat state=open":      1,
			"circuit_breaker.status provider.name=a service.name=chat state=closed":    0,
			"circuit_breaker.transitions provider.name=a service.name=chat state=open": 1,
			"provider.standing provider.name=a reason=breaker_open service.name=chat":  1,
			"provider.status provider.name=b service.name=chat state=healthy":          1,
			"limit.places provider.name=b service.name=chat":                           7,
			"limit.places_used provider.name=b service.name=chat":                      1,
			"events event.kind=registered":                                             2,
			"draining_providers":                                                       0,
			"provider.back_timestamp provider.name=a service.name=chat":                float64(reg.Metrics().Providers[0].BackAt.UnixMilli()) / 1000,
		} {
			got, there := values[key]
			require.True(t, there, "%s of %v", key, slices.Sorted(func(yield func(string) bool) {
				for k := range values {
					if !yield(k) {
						return
					}
				}
			}))
			require.InDelta(t, want, got, 1e-9, key)
		}
		require.InDelta(t, 20*0.03, values["attempt.time provider.name=b service.name=chat"], 1e-9)
		require.InDelta(t, 0.03, values["attempt.duration.quantile quantile=0.5 provider.name=b service.name=chat"], 0.02)
		require.EqualValues(t, 21, b.Info().Attempts)
		lease.Done(nil)

		require.NoError(t, b.Unregister(t.Context()))
		for key := range r.all() {
			require.NotContains(t, key, "provider.name=b", "series end with their provider")
		}
		require.NoError(t, r.observer.Close(t.Context()))
		require.Empty(t, r.all())
	})
}

// Words that are new are here by themselves.
func TestObserve_MetricsHaveEveryWord(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := observeMetrics(t, reg, 0)
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		for _, class := range verdict.Classes() {
			lease, err := testkit.Bind(reg).Acquire(t.Context())
			if err != nil {
				a, _ := reg.Provider("chat", "a")
				require.NoError(t, a.Reset())
				lease, err = testkit.Bind(reg).Acquire(t.Context())
			}
			require.NoError(t, err)
			lease.Done(failsAs(class))
		}
		values := r.all()
		total := 0.0
		for key, value := range values {
			if strings.HasPrefix(key, "attempts ") {
				total += value
			}
		}
		a, _ := reg.Provider("chat", "a")
		require.InDelta(t, float64(a.Info().Attempts), total, 0, "each class is counted")
		for _, kind := range event.Kinds() {
			require.Contains(t, values, "events event.kind="+string(kind))
		}
		for _, why := range reason.Whys() {
			require.Contains(t, values, "selections provider.name=a reason="+string(why)+" service.name=chat")
		}
		for state := range health.Draining + 1 {
			require.Contains(t, values, "provider.status provider.name=a service.name=chat state="+state.String())
		}
		require.Equal(t, "state(6)", fmt.Sprint(health.Draining+1), "the last one")
		require.NoError(t, r.observer.Close(t.Context()))
	})
}

// The bound of the SDK for the attribute sets of an instrument is 2,000.
func TestObserve_ProvidersBeyondTheBoundAreAddedUp(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		few, all, usual := observeMetrics(t, reg, 2), observeMetrics(t, reg, -1), observeMetrics(t, reg, 0)
		for i := range 300 {
			testkit.Add(t, reg, testkit.Provider{Name: fmt.Sprintf("p%03d", i)})
		}
		leases, err := testkit.Bind(reg).AcquireAll(t.Context(), 0)
		require.NoError(t, err)
		values := few.all()
		require.InDelta(t, 1, values["attempt.active provider.name=p001 service.name=chat"], 0)
		require.InDelta(t, 298, values["attempt.active provider.name=other service.name=chat"], 0)
		require.NotContains(t, values, "attempt.active provider.name=p002 service.name=chat")
		require.InDelta(t, 300, values["service.eligible_providers service.name=chat"], 0)
		require.InDelta(t, 300, all.all()["attempt.active provider.name=other service.name=chat"], 0)
		sets := make(map[string]int)
		for key := range usual.all() {
			name, _, _ := strings.Cut(key, " ")
			sets[name]++
			require.NotContains(t, key, "otel.metric.overflow")
		}
		require.Greater(t, sets["attempt.durations"], 1600)
		for _, lease := range leases {
			lease.Done(nil)
		}
		for _, r := range []*reading{few, all, usual} {
			require.NoError(t, r.observer.Close(t.Context()))
		}
	})
}

func TestObserve_InstrumentsHaveUnitAndDescription(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := observeMetrics(t, reg, 0)
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		var collected metricdata.ResourceMetrics
		require.NoError(t, r.reader.Collect(t.Context(), &collected))
		require.Len(t, collected.ScopeMetrics, 1)
		require.Equal(t, "github.com/capreg/registry/contrib/otel", collected.ScopeMetrics[0].Scope.Name)
		for _, m := range collected.ScopeMetrics[0].Metrics {
			require.True(t, strings.HasPrefix(m.Name, "registry."), m.Name)
			require.True(t, strings.HasSuffix(m.Description, "."), m.Name)
			require.NotEmpty(t, m.Unit, m.Name)
		}
		require.NoError(t, r.observer.Close(t.Context()))
	})
}

var errInstrument = errors.New("no more instruments")

// refusing makes no float gauges.
type refusing struct{ noop.MeterProvider }

type refusingMeter struct{ noop.Meter }

func (refusing) Meter(string, ...api.MeterOption) api.Meter { return refusingMeter{} }

func (refusingMeter) Float64ObservableGauge(string, ...api.Float64ObservableGaugeOption) (api.Float64ObservableGauge, error) {
	return nil, errInstrument
}

func TestObserve_RefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		_, err := registryotel.Observe(nil, registryotel.Options{MeterProvider: noop.NewMeterProvider()})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = registryotel.Observe(reg, registryotel.Options{})
		require.ErrorIs(t, err, registry.ErrInvalid)
		for _, roots := range []float64{1.5, math.NaN()} {
			_, err = registryotel.Observe(reg, registryotel.Options{TracerProvider: record().provider, Roots: roots})
			require.ErrorIs(t, err, registry.ErrInvalid)
			require.ErrorContains(t, err, "Options.Roots")
		}
		_, err = registryotel.Observe(new(registry.Registry), registryotel.Options{TracerProvider: record().provider})
		require.ErrorIs(t, err, registry.ErrInvalid)
		spans := record()
		_, err = registryotel.Observe(reg, registryotel.Options{TracerProvider: spans.provider, MeterProvider: refusing{}})
		require.ErrorIs(t, err, errInstrument)
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		_, err = registry.Call(t.Context(), testkit.Bind(reg), testkit.Return)
		require.NoError(t, err)
		require.Empty(t, spans.spans.GetSpans(), "nothing of it is left")
		require.NoError(t, (*registryotel.Observer)(nil).Close(t.Context()))
	})
}
