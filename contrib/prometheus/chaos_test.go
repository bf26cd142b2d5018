package registryprom_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	registryprom "github.com/capreg/registry/contrib/prometheus"
	"github.com/capreg/registry/hedge"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selectors"
	"github.com/capreg/registry/verdict"
)

// tally counts by labels, in the form of those of gather.
type tally struct {
	mu     sync.Mutex
	counts map[string]uint64
}

func (y *tally) add(format string, values ...any) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.counts == nil {
		y.counts = make(map[string]uint64)
	}
	y.counts[fmt.Sprintf(format, values...)]++
}

// counted returns the samples of a metric that are not 0.
func counted(tb testing.TB, from prometheus.Gatherer, name string) map[string]uint64 {
	tb.Helper()
	found := make(map[string]uint64)
	for labels, m := range gather(tb, from, name) {
		if count := whole(m) + m.GetHistogram().GetSampleCount(); count > 0 {
			found[labels] = count
		}
	}
	return found
}

func sum(counts map[string]uint64) (total uint64) {
	for _, count := range counts {
		total += count
	}
	return total
}

func label(class verdict.Class) string {
	if class == verdict.ClassSuccess {
		return ""
	}
	return class.String()
}

// observed is what others than the collector have counted.
type observed struct {
	backends      tally // by provider
	classes, whys tally // of attempts, by hooks or reports
	calls, failed atomic.Uint64
}

func (o *observed) attempt(a registry.Attempt) {
	o.classes.add("error_type=%s,provider=%s,service=chat", label(a.Class), a.Provider)
	o.whys.add("provider=%s,reason=%s,service=chat", a.Provider, a.Why)
}

func (o *observed) called(err error) {
	o.calls.Add(1)
	if err != nil {
		o.failed.Add(1)
	}
}

func (o *observed) hooks() registry.Hooks {
	return registry.Hooks{
		AfterCall:    func(_ context.Context, r registry.CallReport) { o.called(r.Err) },
		AfterAttempt: func(_ context.Context, _ registry.CallReport, a registry.Attempt) { o.attempt(a) },
	}
}

// register registers providers that fail in many ways, and returns the handle of the last one.
func (o *observed) register(t *testing.T, reg *registry.Registry) (last *registry.Registration) {
	t.Helper()
	for i := range 5 {
		var n atomic.Uint64
		name := string(rune('a' + i))
		last = testkit.Add(t, reg, testkit.Provider{
			Name: name, Strategy: selectors.Random(),
			Breaker: registry.BreakerPolicy{FailureThreshold: 2, RecoveryTimeout: time.Millisecond},
			Limits:  registry.LimitPolicy{MaxConcurrent: 3},
			Retry:   registry.RetryPolicy{Retries: 1, FirstDelay: time.Microsecond},
			Instance: testkit.Answers(func() (string, error) {
				o.backends.add("%s", name)
				if code := []int{0, 500, 503, 0, 0, 408, 0, 400, 0, 404, 0, 0}[n.Add(1)%12]; code > 0 {
					return "", testkit.StatusError{Code: code}
				}
				return "ok", nil
			}),
		})
	}
	return last
}

// call makes a call of one of many kinds.
func (o *observed) call(ctx context.Context, r *registry.Resolver[testkit.ChatModel], kind int) {
	chat := func(ctx context.Context, m testkit.ChatModel) (string, error) { return m.Chat(ctx, "") }
	switch kind % 5 {
	case 0, 1:
		_, _ = testkit.Ask(ctx, r)
	case 2:
		_, _ = testkit.Ask(ctx, r, registry.OnceOnly())
	case 3:
		_, _ = hedge.Call(ctx, r, hedge.Policy{After: time.Microsecond}, chat)
	default:
		if lease, err := r.Acquire(ctx); err == nil {
			_, err := chat(lease.Context(), lease.Value) //nolint:contextcheck // it is derived from ctx
			lease.Done(err)
		}
	}
}

// report makes a call, and counts by its report.
func (o *observed) report(ctx context.Context, r *registry.Resolver[testkit.ChatModel], _ int) {
	var report registry.CallReport
	_, err := testkit.Ask(ctx, r, registry.ReportTo(&report))
	o.called(err)
	for _, a := range report.Attempts {
		o.attempt(a)
	}
}

// chaos makes calls of all kinds at once, while the metrics are read and, in the middle, a provider leaves. It returns
// how many calls there were, and what the provider that left had done.
func (o *observed) chaos(
	t *testing.T, reg *registry.Registry, gatherer prometheus.Gatherer, call func(context.Context, *registry.Resolver[testkit.ChatModel], int),
) (made uint64, left registry.Info) {
	t.Helper()
	leaver := o.register(t, reg)
	const workers, each = 8, 150
	r := testkit.Bind(reg)
	var calling, reading sync.WaitGroup
	stop := make(chan struct{})
	reading.Go(func() {
		before := uint64(0)
		for {
			select {
			case <-stop:
				return
			default:
			}
			families, err := gatherer.Gather()
			if err != nil {
				t.Error(err)
				return
			}
			now := total(families, "registry_calls_total")
			if now < before {
				t.Errorf("calls fell from %d to %d", before, now)
			}
			before = now
		}
	})
	for range workers {
		calling.Go(func() {
			for i := range each {
				call(t.Context(), r, i)
			}
		})
	}
	require.NoError(t, leaver.Unregister(t.Context()))
	calling.Wait()
	require.Eventually(t, func() bool { return o.ended(reg, workers*each) }, time.Minute, time.Millisecond, "the losers of hedges end later")
	close(stop)
	reading.Wait()
	return workers * each, leaver.Info()
}

// ended reports whether all calls have ended, with their hooks.
func (o *observed) ended(reg *registry.Registry, calls uint64) bool {
	var counted, running uint64
	snapshot := reg.Metrics()
	for _, outcome := range snapshot.Services[0].Calls {
		counted += outcome.Duration.Count
	}
	for _, p := range snapshot.Providers {
		running += p.InFlight
	}
	hooked := o.calls.Load()
	return counted == calls && running == 0 && (hooked == 0 || hooked == calls)
}

func total(families []*dto.MetricFamily, name string) (sum uint64) {
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				sum += uint64(m.GetCounter().GetValue())
			}
		}
	}
	return sum
}

// hasLabel reports whether one of the labels has that value.
func hasLabel(labels, value string) bool {
	for one := range strings.SplitSeq(labels, ",") {
		if _, has, _ := strings.Cut(one, "="); has == value {
			return true
		}
	}
	return false
}

// only keeps the samples with a label of that value.
func only(counts map[string]uint64, value string) map[string]uint64 {
	kept := maps.Clone(counts)
	maps.DeleteFunc(kept, func(labels string, _ uint64) bool { return !hasLabel(labels, value) })
	return kept
}

// without removes what a provider has that has left: it has no series.
func without(counts map[string]uint64, provider string) map[string]uint64 {
	kept := maps.Clone(counts)
	maps.DeleteFunc(kept, func(labels string, _ uint64) bool { return hasLabel(labels, provider) })
	return kept
}

func TestCollector_IsExactUnderChaos(t *testing.T) {
	t.Parallel()
	for _, observer := range []string{"hooks", "reports", "backends alone"} {
		var o observed
		options, call := registry.Options{}, o.call
		switch observer {
		case "hooks":
			options.Hooks = o.hooks()
		case "reports":
			call = o.report
		}
		reg := testkit.New(t, options)
		events := reg.Subscribe(1 << 16)
		gatherer := prometheus.NewPedanticRegistry()
		require.NoError(t, gatherer.Register(registryprom.New(reg, registryprom.Options{})))
		made, left := o.chaos(t, reg, gatherer, call)

		attempts := counted(t, gatherer, "registry_attempt_duration_seconds")
		whys := counted(t, gatherer, "registry_selections_total")
		reached := o.backends.counts
		require.Equal(t, sum(reached), sum(attempts)+left.Attempts, "what reached the backends")
		require.Equal(t, reached["e"], left.Attempts)
		require.Equal(t, sum(whys), sum(attempts))
		for info := range reg.All() {
			require.Equal(t, reached[info.Name], info.Attempts, info.Name)
			require.Equal(t, info.Attempts, sum(only(attempts, info.Name)), info.Name)
			require.Equal(t, info.Attempts, sum(only(whys, info.Name)), info.Name)
			require.Equal(t, info.Breaker.Opened, counted(t, gatherer, "registry_circuit_breaker_transitions_total")["provider="+info.Name+",service=chat,state=open"])
		}
		require.Empty(t, counted(t, gatherer, "registry_attempt_active"))
		calls := counted(t, gatherer, "registry_calls_total")
		require.Equal(t, made, sum(calls))
		require.Equal(t, calls, counted(t, gatherer, "registry_call_duration_seconds"))
		amounts := gather(t, gatherer, "registry_call_attempts")["service=chat"].GetHistogram()
		require.Equal(t, made, amounts.GetSampleCount())
		require.InDelta(t, float64(sum(reached)), amounts.GetSampleSum(), 0)
		require.Equal(t, made, sum(counted(t, gatherer, "registry_lookups_total")))
		if observer != "backends alone" {
			require.Equal(t, without(o.classes.counts, "e"), attempts, "by class")
			require.Equal(t, without(o.whys.counts, "e"), whys, "by reason")
			require.Equal(t, made, o.calls.Load())
			require.Equal(t, made-o.failed.Load(), calls["error_type=,service=chat"])
		}
		require.NoError(t, reg.Close(t.Context()))
		kinds := make(map[string]uint64)
		for e := range events.All(t.Context()) {
			require.Zero(t, e.Lost)
			kinds["kind="+string(e.Kind)]++
		}
		require.Equal(t, kinds, counted(t, gatherer, "registry_events_total"), "events of its whole life")
	}
}
