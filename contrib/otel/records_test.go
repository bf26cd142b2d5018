package registryotel_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	sdk "go.opentelemetry.io/otel/sdk/log"

	"github.com/capreg/registry"
	registryotel "github.com/capreg/registry/contrib/otel"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/bus"
	"github.com/capreg/registry/internal/testkit"
)

// kept keeps the records that it gets.
type kept struct {
	mu      sync.Mutex
	records []sdk.Record
	do      func()
}

func (k *kept) OnEmit(_ context.Context, r *sdk.Record) error {
	if k.do != nil {
		k.do()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.records = append(k.records, r.Clone())
	return nil
}

func (*kept) Enabled(context.Context, sdk.EnabledParameters) bool { return true }
func (*kept) Shutdown(context.Context) error                      { return nil }
func (*kept) ForceFlush(context.Context) error                    { return nil }

func (k *kept) all() []sdk.Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.records)
}

func attributesOf(r sdk.Record) map[string]string {
	attributes := make(map[string]string)
	r.WalkAttributes(func(a attribute.KeyValue) bool {
		attributes[string(a.Key)] = a.Value.String()
		return true
	})
	return attributes
}

func observeRecords(t *testing.T, reg *registry.Registry, to *kept) *registryotel.Observer {
	t.Helper()
	observer, err := registryotel.Observe(reg, registryotel.Options{LoggerProvider: sdk.NewLoggerProvider(sdk.WithProcessor(to))})
	require.NoError(t, err)
	return observer
}

func TestObserve_ChangesAreLogRecords(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var k kept
		observer := observeRecords(t, reg, &k)
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.NoError(t, a.ForceOpen(time.Minute, "maintenance"))
		_, err := a.SetWeight(3)
		require.NoError(t, err)
		require.NoError(t, a.MarkUnhealthy(errors.New("no\nroute")))
		synctest.Wait()
		records := k.all()
		require.Len(t, records, 4)
		opened := records[1]
		require.Equal(t, "registry.breaker_opened", opened.EventName())
		require.Equal(t, "registry breaker_opened", opened.Body().AsString())
		require.Equal(t, log.SeverityWarn, opened.Severity())
		require.Equal(t, "WARN", opened.SeverityText())
		require.Equal(t, time.Now(), opened.Timestamp().Local())
		require.Equal(t, map[string]string{
			"registry.service.name": "chat", "registry.provider.name": "a", "registry.event.sequence": "2",
			"registry.event.reason": "maintenance", "registry.event.from": "closed", "registry.event.to": "open",
			"registry.event.until": time.Now().Add(time.Minute).Format(time.RFC3339Nano),
		}, attributesOf(opened))
		require.Equal(t, log.SeverityInfo, records[2].Severity())
		require.Equal(t, "no route", attributesOf(records[3])["registry.event.error"])

		require.NoError(t, observer.Close(t.Context()))
		require.NoError(t, a.Reset())
		synctest.Wait()
		require.Len(t, k.all(), 4)
	})
}

func TestObserve_RecordsEndWithTheRegistry(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var k kept
		observer := observeRecords(t, reg, &k)
		require.NoError(t, reg.Close(t.Context()))
		synctest.Wait()
		require.Equal(t, "registry.closed", k.all()[len(k.all())-1].EventName())
		require.NoError(t, observer.Close(t.Context()))
		observer = observeRecords(t, reg, &k)
		require.NoError(t, observer.Close(t.Context()), "of a closed registry")
	})
}

// A logger that panics loses its record; one that blocks keeps Close no longer than its context allows.
func TestObserve_LoggerThatMisbehavesHarmsNothing(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		panicking := &kept{do: func() { panic("logger") }}
		observer := observeRecords(t, reg, panicking)
		release := make(chan struct{})
		blocking := &kept{do: func() { <-release }}
		blocked := observeRecords(t, reg, blocking)
		for range 300 {
			require.NoError(t, testkit.Add(t, reg, testkit.Provider{Name: "a"}).Unregister(t.Context()))
		}
		synctest.Wait()
		require.NoError(t, observer.Close(t.Context()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, blocked.Close(ctx), context.DeadlineExceeded)
		close(release)
		require.NoError(t, blocked.Close(t.Context()))
		lost := 0
		for _, r := range blocking.all() {
			if attributesOf(r)["registry.event.lost"] != "" {
				lost++
			}
		}
		require.Positive(t, lost, "a record says how many are missing")
	})
}

// A kind that is new has no level until it is in the table, and is here by itself.
func TestRecordOf_EveryKindHasANameAndTheLevelOfTheLog(t *testing.T) {
	t.Parallel()
	for _, kind := range event.Kinds() {
		level, known := bus.LevelOf(kind)
		require.True(t, known, kind)
		name, severity := registryotel.RecordOf(kind)
		require.Equal(t, "registry."+string(kind), name)
		require.Equal(t, level.String(), severity.String())
	}
}
