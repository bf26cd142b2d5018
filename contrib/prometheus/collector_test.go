package registryprom_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	registryprom "github.com/capreg/registry/contrib/prometheus"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var models = registry.NewService[func() error]("llm")

// newRegistry returns a registry that is closed with the test, and its collector among no others.
func newRegistry(tb testing.TB, options registryprom.Options) (*registry.Registry, *prometheus.Registry) {
	tb.Helper()
	reg, err := registry.New(registry.Options{})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, reg.Close(context.Background())) })
	gatherer := prometheus.NewPedanticRegistry()
	require.NoError(tb, gatherer.Register(registryprom.New(reg, options)))
	return reg, gatherer
}

func add(tb testing.TB, reg *registry.Registry, name string, answer error) *registry.Registration {
	tb.Helper()
	handle, err := models.Register(context.Background(), reg, registry.Provider[func() error]{Name: name, Instance: func() error { return answer }})
	require.NoError(tb, err)
	return handle
}

func ask(reg *registry.Registry, options ...registry.CallOption) error {
	return models.Bind(reg, registry.Query{}).Do(context.Background(), func(_ context.Context, model func() error) error { return model() }, options...)
}

// gather returns the samples of a metric by their labels.
func gather(tb testing.TB, from prometheus.Gatherer, name string) map[string]*dto.Metric {
	tb.Helper()
	families, err := from.Gather()
	require.NoError(tb, err)
	found := make(map[string]*dto.Metric)
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			found[strings.Join(labels, ",")] = m
		}
	}
	return found
}

// whole returns the value of a counter or gauge.
func whole(m *dto.Metric) uint64 { return uint64(m.GetCounter().GetValue() + m.GetGauge().GetValue()) }

func TestCollector_ShowsWhatInfoShows(t *testing.T) {
	t.Parallel()
	reg, gatherer := newRegistry(t, registryprom.Options{})
	failing := verdict.As(errors.New("down"), verdict.Verdict{Class: verdict.ClassServerError})
	a, b := add(t, reg, "a", failing), add(t, reg, "b", nil)
	for range 20 {
		require.NoError(t, ask(reg))
	}
	require.NoError(t, ask(reg, registry.OnceOnly()))

	attempts := gather(t, gatherer, "registry_attempt_duration_seconds")
	require.Equal(t, a.Info().Failures, attempts["error_type=server error,provider=a,service=llm"].GetHistogram().GetSampleCount())
	require.Equal(t, b.Info().Successes, attempts["error_type=,provider=b,service=llm"].GetHistogram().GetSampleCount())
	require.Zero(t, attempts["error_type=,provider=a,service=llm"].GetHistogram().GetSampleCount(), "it begins at 0")
	require.EqualValues(t, 21, gather(t, gatherer, "registry_call_duration_seconds")["error_type=,service=llm"].GetHistogram().GetSampleCount())
	require.EqualValues(t, 21, whole(gather(t, gatherer, "registry_lookups_total")["result=hit,service=llm"]))
	require.Equal(t, a.Info().Attempts, whole(gather(t, gatherer, "registry_selections_total")["provider=b,reason=failover,service=llm"]))
	require.EqualValues(t, 1, whole(gather(t, gatherer, "registry_circuit_breaker_status")["provider=a,service=llm,state=open"]))
	require.EqualValues(t, 1, whole(gather(t, gatherer, "registry_circuit_breaker_transitions_total")["provider=a,service=llm,state=open"]))
	require.EqualValues(t, 1, whole(gather(t, gatherer, "registry_service_eligible_providers")["service=llm"]))
}

func TestCollector_SeriesVanishWithTheirProvider(t *testing.T) {
	t.Parallel()
	reg, gatherer := newRegistry(t, registryprom.Options{})
	a := add(t, reg, "a", nil)
	add(t, reg, "b", nil)
	require.NoError(t, ask(reg))
	require.NoError(t, a.Unregister(t.Context()))
	families, err := gatherer.Gather()
	require.NoError(t, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				require.NotEqual(t, "a", l.GetValue(), family.GetName())
			}
		}
	}
	require.EqualValues(t, 1, gather(t, gatherer, "registry_call_duration_seconds")["error_type=,service=llm"].GetHistogram().GetSampleCount(),
		"the service keeps its calls")
}

func TestCollector_NamesAndHelpAreClean(t *testing.T) {
	t.Parallel()
	reg, gatherer := newRegistry(t, registryprom.Options{})
	add(t, reg, "a", nil)
	require.NoError(t, ask(reg))
	problems, err := testutil.GatherAndLint(gatherer)
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestCollector_EveryKindOfEventIsCounted(t *testing.T) {
	t.Parallel()
	reg, gatherer := newRegistry(t, registryprom.Options{})
	add(t, reg, "a", nil)
	counted := gather(t, gatherer, "registry_events_total")
	require.Len(t, counted, len(event.Kinds()))
	for _, kind := range event.Kinds() {
		require.Contains(t, counted, "kind="+string(kind))
	}
	require.EqualValues(t, 1, whole(counted["kind="+string(event.Registered)]))
}

func TestCollector_ProvidersBeyondTheBoundAreAddedUp(t *testing.T) {
	t.Parallel()
	for most, want := range map[int]int{0: 5, 2: 3, -1: 1} {
		reg, gatherer := newRegistry(t, registryprom.Options{MaxProviders: most})
		for i := range 5 {
			add(t, reg, fmt.Sprint("p", i), nil)
		}
		require.NoError(t, ask(reg))
		require.Len(t, gather(t, gatherer, "registry_attempt_active"), want, most)
		var attempts uint64
		for _, m := range gather(t, gatherer, "registry_attempt_duration_seconds") {
			attempts += m.GetHistogram().GetSampleCount()
		}
		require.EqualValues(t, 1, attempts)
		if most != 0 {
			status := gather(t, gatherer, "registry_provider_status")["provider="+registryprom.Other+",service=llm,state=healthy"]
			require.EqualValues(t, 6-want, whole(status))
		}
	}
}

func TestCollector_BothKindsOfHistogramHaveTheSameCounts(t *testing.T) {
	t.Parallel()
	reg, gatherer := newRegistry(t, registryprom.Options{})
	add(t, reg, "a", nil)
	for range 100 {
		require.NoError(t, ask(reg))
	}
	lease, err := models.Bind(reg, registry.Query{}).Acquire(t.Context())
	require.NoError(t, err)
	for began := time.Now(); time.Since(began) < 6*time.Millisecond; { // it is in a bucket above the first
		_ = began
	}
	lease.Done(nil)
	h := gather(t, gatherer, "registry_attempt_duration_seconds")["error_type=,provider=a,service=llm"].GetHistogram()
	require.EqualValues(t, 101, h.GetSampleCount())
	native, at := h.GetZeroCount(), int64(0)
	for _, delta := range h.GetPositiveDelta() {
		at += delta
		native += uint64(at)
	}
	require.EqualValues(t, 101, native)
	require.Zero(t, h.GetSchema())
	require.InDelta(t, 0.005, h.GetBucket()[0].GetUpperBound(), 1e-12)
	require.LessOrEqual(t, h.GetBucket()[0].GetCumulativeCount(), uint64(100))
	require.EqualValues(t, 101, h.GetBucket()[len(h.GetBucket())-1].GetCumulativeCount())
}

func TestCollector_AttemptsHaveEveryOtherBucketOfCalls(t *testing.T) {
	t.Parallel()
	for all, want := range map[bool]int{false: 8, true: 15} {
		reg, gatherer := newRegistry(t, registryprom.Options{AllBuckets: all})
		add(t, reg, "a", nil)
		lease, err := models.Bind(reg, registry.Query{}).Acquire(t.Context())
		require.NoError(t, err)
		for began := time.Now(); time.Since(began) < 11*time.Millisecond; { // it is in a bucket above the first
			_ = began
		}
		lease.Done(nil)
		calls := gather(t, gatherer, "registry_call_duration_seconds")["error_type=,service=llm"].GetHistogram()
		attempts := gather(t, gatherer, "registry_attempt_duration_seconds")["error_type=,provider=a,service=llm"].GetHistogram()
		require.Len(t, calls.GetBucket(), 15)
		require.Len(t, attempts.GetBucket(), want)
		of := make(map[float64]bool)
		for _, b := range calls.GetBucket() {
			of[b.GetUpperBound()] = true
		}
		for _, b := range attempts.GetBucket() {
			require.True(t, of[b.GetUpperBound()], "%v", b.GetUpperBound())
		}
		require.InDelta(t, 81.92, attempts.GetBucket()[want-1].GetUpperBound(), 1e-9)
		require.Zero(t, attempts.GetBucket()[0].GetCumulativeCount())
		require.EqualValues(t, 1, attempts.GetBucket()[want-1].GetCumulativeCount())
		require.Len(t, attempts.GetPositiveDelta(), 1, "the native one has a bucket for each doubling")
		require.Greater(t, attempts.GetPositiveSpan()[0].GetOffset(), int32(-8))
	}
}

func TestCollector_OfNoRegistryShowsNoProvider(t *testing.T) {
	t.Parallel()
	gatherer := prometheus.NewPedanticRegistry()
	require.NoError(t, gatherer.Register(registryprom.New(nil, registryprom.Options{})))
	require.Empty(t, gather(t, gatherer, "registry_attempt_active"))
}

func TestCollector_ServicesBeyondTheBoundAreAddedUp(t *testing.T) {
	t.Parallel()
	for most, want := range map[int][]string{0: {"a", "b", "c"}, 1: {"a", registryprom.Other}, -1: {registryprom.Other}} {
		reg, gatherer := newRegistry(t, registryprom.Options{MaxServices: most})
		for _, name := range []string{"a", "b", "c"} {
			service := registry.NewService[int](name)
			_, err := service.Register(t.Context(), reg, registry.Provider[int]{Name: "of " + name})
			require.NoError(t, err)
			require.NoError(t, service.Bind(reg, registry.Query{}).Do(t.Context(), func(context.Context, int) error { return nil }))
		}
		calls := gather(t, gatherer, "registry_call_duration_seconds")
		require.Len(t, calls, len(want))
		served := gather(t, gatherer, "registry_service_eligible_providers")
		require.Len(t, served, len(want))
		var sum, eligible uint64
		for _, name := range want {
			sum += calls["error_type=,service="+name].GetHistogram().GetSampleCount()
			eligible += whole(served["service="+name])
		}
		require.EqualValues(t, 3, sum)
		require.EqualValues(t, 3, eligible)
		require.Len(t, gather(t, gatherer, "registry_attempt_active"), len(want), "providers are with their service")
	}
}

func TestCollector_KnownLabelsBeginAtZero(t *testing.T) {
	t.Parallel()
	_, gatherer := newRegistry(t, registryprom.Options{})
	reg, gatherer2 := newRegistry(t, registryprom.Options{})
	add(t, reg, "a", nil)
	require.Empty(t, gather(t, gatherer, "registry_calls_total"))
	calls := gather(t, gatherer2, "registry_calls_total")
	for _, class := range verdict.Classes() {
		label := class.String()
		if class == verdict.ClassSuccess {
			label = ""
		}
		require.Contains(t, calls, "error_type="+label+",service=llm")
	}
	failures := gather(t, gatherer2, "registry_lookup_failures_total")
	for _, code := range reason.Codes() {
		if code != reason.Eligible && code != reason.Trial {
			require.Contains(t, failures, "reason="+string(code)+",service=llm")
		}
	}
	require.Len(t, gather(t, gatherer2, "registry_provider_standing"), 1, "the word of now alone")
	require.Len(t, gather(t, gatherer2, "registry_circuit_breaker_status"), 3)
}

func TestCollector_CountersOfWhatCanHappenBeginAtZero(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options    registry.Options
		provider   registry.Provider[func() error]
		selections []string
		rejections []string
	}{
		"by default":     {selections: []string{"failover", "first"}, rejections: []string{"retry_budget_spent"}},
		"with retries":   {provider: registry.Provider[func() error]{Retry: registry.RetryPolicy{Retries: 1}}, selections: []string{"failover", "first", "retry"}, rejections: []string{"retry_budget_spent"}},
		"with places":    {provider: registry.Provider[func() error]{Limits: registry.LimitPolicy{MaxConcurrent: 1}}, selections: []string{"failover", "first"}, rejections: []string{"at_capacity", "retry_budget_spent"}},
		"with a rate":    {provider: registry.Provider[func() error]{Limits: registry.LimitPolicy{Rate: 1}}, selections: []string{"failover", "first"}, rejections: []string{"retry_budget_spent", "throttled"}},
		"with authorise": {options: registry.Options{Authorize: func(context.Context, string, string, string) error { return nil }}, selections: []string{"failover", "first"}, rejections: []string{"denied", "retry_budget_spent"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, err := registry.New(c.options)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, reg.Close(context.Background())) })
			c.provider.Name, c.provider.Instance = "a", func() error { return nil }
			_, err = models.Register(t.Context(), reg, c.provider)
			require.NoError(t, err)
			collector := registryprom.New(reg, registryprom.Options{})
			require.Equal(t, c.selections, wordsAtZero(t, collector, "registry_selections_total"))
			require.Equal(t, c.rejections, wordsAtZero(t, collector, "registry_attempt_rejections_total"))
			require.Equal(t, []string{"open"}, wordsAtZero(t, collector, "registry_circuit_breaker_transitions_total"), "nothing else can come first")
		})
	}
}

// wordsAtZero returns the words that a counter has by reason or state, all of which are 0.
func wordsAtZero(t *testing.T, from prometheus.Gatherer, name string) (words []string) {
	t.Helper()
	for labels, m := range gather(t, from, name) {
		require.Zero(t, whole(m), labels)
		for one := range strings.SplitSeq(labels, ",") {
			if label, word, _ := strings.Cut(one, "="); label == "reason" || label == "state" {
				words = append(words, word)
			}
		}
	}
	slices.Sort(words)
	return words
}

func TestCollector_AfterTheFirstOpeningAllTransitionsAreShown(t *testing.T) {
	t.Parallel()
	reg, gatherer := newRegistry(t, registryprom.Options{})
	a := add(t, reg, "a", nil)
	require.NoError(t, a.ForceOpen(time.Minute, "maintenance"))
	changes := make(map[string]uint64)
	for labels, m := range gather(t, gatherer, "registry_circuit_breaker_transitions_total") {
		changes[labels] = whole(m)
	}
	require.Equal(t, map[string]uint64{
		"provider=a,service=llm,state=closed": 0, "provider=a,service=llm,state=half-open": 0, "provider=a,service=llm,state=open": 1,
	}, changes)
}

func TestCollector_RefusalsAreShownWhenTheirPolicyHasGone(t *testing.T) {
	t.Parallel()
	reg, gatherer := newRegistry(t, registryprom.Options{})
	a, err := models.Register(t.Context(), reg, registry.Provider[func() error]{
		Name: "a", Instance: func() error { return nil }, Limits: registry.LimitPolicy{Rate: 0.001, Burst: 1},
	})
	require.NoError(t, err)
	require.NoError(t, ask(reg))
	require.Error(t, ask(reg))
	before := counted(t, gatherer, "registry_attempt_rejections_total")
	require.NotZero(t, before["provider=a,reason=throttled,service=llm"])
	_, err = a.SetLimits(registry.LimitPolicy{})
	require.NoError(t, err)
	require.Equal(t, before, counted(t, gatherer, "registry_attempt_rejections_total"))
}

func TestCollector_ShowsComponents(t *testing.T) {
	t.Parallel()
	component := registry.Component{Name: "store", Start: func(context.Context, *startup.Run) error { return nil }}
	orchestrator, err := registry.NewOrchestrator(nil, startup.Options{}, component)
	require.NoError(t, err)
	_, gatherer := newRegistry(t, registryprom.Options{Orchestrator: orchestrator})
	state := func() (now []string) {
		for labels, m := range gather(t, gatherer, "registry_component_status") {
			if whole(m) == 1 {
				now = append(now, labels)
			}
		}
		return now
	}
	require.Equal(t, []string{"component=store,state=waiting"}, state())
	require.Empty(t, gather(t, gatherer, "registry_component_start_duration_seconds"))
	_, err = orchestrator.Start(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"component=store,state=ready"}, state())
	require.Contains(t, gather(t, gatherer, "registry_component_restarts_total"), "component=store")
	require.NoError(t, orchestrator.Stop(t.Context()))
	require.Equal(t, []string{"component=store,state=stopped"}, state())
}

func TestCollector_ShowsEveryClassReasonAndState(t *testing.T) {
	t.Parallel()
	for _, class := range verdict.Classes() {
		reg, gatherer := newRegistry(t, registryprom.Options{})
		add(t, reg, "a", verdict.As(errors.New("of its class"), verdict.Verdict{Class: class}))
		var seen []verdict.Class
		_, err := reg.AddHooks(registry.Hooks{AfterAttempt: func(_ context.Context, _ registry.CallReport, a registry.Attempt) { seen = append(seen, a.Class) }})
		require.NoError(t, err)
		_ = ask(reg, registry.OnceOnly())
		for _, class := range seen {
			require.Contains(t, gather(t, gatherer, "registry_attempt_duration_seconds"), "error_type="+label(class)+",provider=a,service=llm")
		}
		require.Contains(t, gather(t, gatherer, "registry_calls_total"), "error_type="+label(class)+",service=llm")
	}
}

// TestCollector_LeavesOutNoWord has the collector read a registry in which a few things have happened, and compares what it
// shows with the snapshot: a word that it did not know would be shown as another one.
func TestCollector_LeavesOutNoWord(t *testing.T) {
	t.Parallel()
	reg, gatherer := newRegistry(t, registryprom.Options{})
	failing := verdict.As(errors.New("down"), verdict.Verdict{Class: verdict.ClassServerError})
	a := add(t, reg, "a", failing)
	add(t, reg, "b", nil)
	for range 10 {
		require.NoError(t, ask(reg))
	}
	require.NoError(t, a.MarkUnhealthy(errors.New("maintenance")))
	_, err := models.Bind(reg, registry.Query{}).Each(t.Context(), func(_ context.Context, model func() error) error { return model() })
	require.NoError(t, err)
	_ = models.Bind(reg, registry.Query{Require: []string{"tools"}}).Do(t.Context(), func(context.Context, func() error) error { return nil })
	snapshot := reg.Metrics()
	whys := counted(t, gatherer, "registry_selections_total")
	standing := counted(t, gatherer, "registry_provider_standing")
	states := counted(t, gatherer, "registry_provider_status")
	breakers := counted(t, gatherer, "registry_circuit_breaker_status")
	for _, p := range snapshot.Providers {
		for why, times := range p.Whys {
			require.Equal(t, times, whys[fmt.Sprintf("provider=%s,reason=%s,service=llm", p.Name, why)])
		}
		require.EqualValues(t, 1, standing[fmt.Sprintf("provider=%s,reason=%s,service=llm", p.Name, p.Code)])
		require.EqualValues(t, 1, states[fmt.Sprintf("provider=%s,service=llm,state=%s", p.Name, p.Health)])
		require.EqualValues(t, 1, breakers[fmt.Sprintf("provider=%s,service=llm,state=%s", p.Name, p.Breaker)])
	}
	require.Len(t, standing, 2)
	require.Len(t, states, 2)
	require.Len(t, breakers, 2)
	failures := counted(t, gatherer, "registry_lookup_failures_total")
	require.NotEmpty(t, failures)
	for code, times := range snapshot.Services[0].MissesByReason {
		require.Equal(t, times, failures[fmt.Sprintf("reason=%s,service=llm", code)])
	}
	events := counted(t, gatherer, "registry_events_total")
	require.Len(t, events, len(snapshot.Events))
	for kind, times := range snapshot.Events {
		require.Equal(t, times, events["kind="+string(kind)])
	}
}

func TestCollector_LabelsTellProvidersOfOneNameApart(t *testing.T) {
	t.Parallel()
	reg, gatherer := newRegistry(t, registryprom.Options{})
	add(t, reg, "a", nil)
	_, err := registry.NewService[int]("other").Register(t.Context(), reg, registry.Provider[int]{Name: "a", Instance: 1})
	require.NoError(t, err)
	require.NoError(t, ask(reg))
	attempts := make(map[string]uint64)
	for labels, m := range gather(t, gatherer, "registry_attempt_duration_seconds") {
		attempts[labels] += m.GetHistogram().GetSampleCount()
	}
	require.Equal(t, map[string]uint64{"error_type=,provider=a,service=llm": 1, "error_type=,provider=a,service=other": 0}, attempts)
}
