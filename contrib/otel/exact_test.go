package registryotel_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/capreg/registry"
	registryotel "github.com/capreg/registry/contrib/otel"
	"github.com/capreg/registry/hedge"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

// Calls of each kind, from several goroutines, on providers that fail and are slow by chance.
func TestObserve_SpansAndMetricsCountWhatHasHappened(t *testing.T) {
	t.Parallel()
	const callers, calls = 8, 60
	r := record()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		reader := metric.NewManualReader()
		observer, err := registryotel.Observe(reg, registryotel.Options{
			TracerProvider: r.provider, MeterProvider: metric.NewMeterProvider(metric.WithReader(reader)),
		})
		require.NoError(t, err)
		classes := []verdict.Class{verdict.ClassTransport, verdict.ClassServerError, verdict.ClassOverloaded, verdict.ClassBadRequest}
		for _, name := range []string{"a", "b", "c"} {
			testkit.Add(t, reg, testkit.Provider{Name: name, Instance: testkit.ChatFunc(func(ctx context.Context, _ string) (string, error) {
				select {
				case <-time.After(time.Duration(rand.IntN(5)) * time.Second):
				case <-ctx.Done():
					return "", ctx.Err()
				}
				if rand.IntN(3) == 0 {
					return "", failsAs(classes[rand.IntN(len(classes))])
				}
				return name, nil
			})})
		}
		models := testkit.Bind(reg)
		ask := func(ctx context.Context, m testkit.ChatModel) (string, error) { return m.Chat(ctx, "") }
		var callersRun sync.WaitGroup
		for range callers {
			callersRun.Go(func() {
				for range calls {
					switch rand.IntN(4) {
					case 0:
						_, _ = hedge.Call(t.Context(), models, hedge.Policy{After: time.Second, MaxProviders: 3}, ask)
					case 1:
						lease, err := models.Acquire(t.Context())
						for err == nil {
							if _, failure := ask(lease.Context(), lease.Value); failure == nil {
								lease.Done(nil)
								break
							} else {
								lease, err = lease.MoveOn(failure)
							}
						}
					case 2:
						_, _ = registry.Call(t.Context(), models, ask, registry.OnceOnly())
					default:
						_, _ = registry.Call(t.Context(), models, ask)
					}
				}
			})
		}
		callersRun.Wait()
		synctest.Wait()

		spans := make(map[string]int)
		for _, s := range r.spans.GetSpans() {
			kind, _, _ := strings.Cut(s.Name, " ")
			spans[kind]++
			require.False(t, s.EndTime.IsZero())
		}
		attempts := 0
		for _, info := range testkit.Infos(reg) {
			attempts += int(info.Attempts)
			require.Zero(t, info.InFlight)
		}
		require.Equal(t, attempts, spans["attempt"])
		require.Equal(t, callers*calls, spans["call"])
		counted := make(map[string]float64)
		for key, value := range (&reading{t: t, reader: reader}).all() {
			name, _, _ := strings.Cut(key, " ")
			counted[name] += value
		}
		require.InDelta(t, attempts, counted["attempts"], 0)
		require.InDelta(t, attempts, counted["selections"], 0)
		require.InDelta(t, attempts, counted["call.attempts"], 0)
		require.InDelta(t, callers*calls, counted["calls"], 0)
		require.Zero(t, counted["attempt.active"])
		require.NoError(t, observer.Close(t.Context()))
	})
}
