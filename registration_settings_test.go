package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

func TestRegistration_LeavesWhenUntilEnds(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{DrainTimeout: time.Second}, func(t *testing.T, reg *registry.Registry) {
		life, end := context.WithCancel(t.Context())
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Until: life})
		lease, err := testkit.Bind(reg).Acquire(t.Context(), registry.AttemptTimeout(time.Hour))
		require.NoError(t, err)
		end()
		synctest.Wait()
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, registry.ErrUnknownService)
		require.NoError(t, lease.Context().Err(), "what is in flight goes on")
		testkit.Pass(time.Second)
		require.ErrorIs(t, context.Cause(lease.Context()), registry.ErrClosed, "for the drain timeout")
		lease.Done(nil)
		<-a.Left()

		ended, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "b", Instance: testkit.Says("b"), Until: life})
		require.NoError(t, err)
		synctest.Wait()
		<-ended.Left()
	})
}

func TestUnregister_DoesNotKeepInstanceAlive(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	r := testkit.Bind(reg)
	kept := reg.Subscribe(0)
	freed := make(chan struct{})
	var handle *registry.Registration
	func() {
		model := &bigModel{}
		runtime.AddCleanup(model, func(done chan struct{}) { close(done) }, freed)
		handle = testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: model})
		require.Equal(t, "big", testkit.MustAsk(t, r))
		_ = r.Explain()
	}()
	require.NoError(t, handle.Unregister(t.Context()))
	for {
		runtime.GC()
		select {
		case <-freed:
			require.NoError(t, reg.Close(t.Context()))
			kept.Close()
			runtime.KeepAlive(handle)
			return
		default:
			runtime.Gosched()
		}
	}
}

func TestUnregister_WaitersDoNotKeepInstanceAlive(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"nothing", "cooldown", "late failure", "factory retry"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			reg := testkit.New(t, registry.Options{})
			freed := make(chan struct{})
			func() {
				inst := &classifying{ChatModel: testkit.Says("x")}
				runtime.AddCleanup(inst, func(int) { close(freed) }, 0)
				pr := testkit.Provider{Name: "p", Classify: inst.classify, Instance: inst, Breaker: registry.BreakerPolicy{FailureThreshold: 1}}
				if how == "factory retry" {
					pr.Instance = nil
					pr.Factory = func(context.Context) (testkit.ChatModel, error) { _ = inst; return nil, testkit.ErrDown }
				}
				p := testkit.Add(t, reg, pr)
				switch how {
				case "cooldown":
					l, err := testkit.Bind(reg).Acquire(t.Context())
					require.NoError(t, err)
					l.Done(verdict.RateLimited(testkit.ErrDown, time.Hour))
				case "factory retry":
					_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
				case "late failure":
					l, err := testkit.Bind(reg).Acquire(t.Context())
					require.NoError(t, err)
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					_ = p.Unregister(ctx)
					l.Done(testkit.ErrDown)
				}
				require.NoError(t, p.Unregister(t.Context()))
			}()
			for alive := true; alive; { // until the test's own deadline
				runtime.GC()
				select {
				case <-freed:
					alive = false
				default:
				}
			}
			require.NoError(t, reg.Close(t.Context()))
		})
	}
}

// classifying is a model with a classifier, as a method.
type classifying struct {
	testkit.ChatModel
}

func (c *classifying) classify(error) verdict.Verdict { return verdict.Verdict{} }

type bigModel struct{ _ [1 << 16]byte }

func (*bigModel) Chat(context.Context, string) (string, error) { return "big", nil }

func TestRegistration_SettersReturnPreviousValue(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		testkit.MustAsk(t, testkit.Bind(reg))
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		events := reg.Subscribe(0)

		priority, err := b.SetPriority(registry.PriorityHigh)
		require.NoError(t, err)
		require.Equal(t, registry.PriorityNormal, priority)
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)))
		group, err := b.SetGroup(4)
		require.NoError(t, err)
		require.Equal(t, 0, group)
		require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
		group, err = b.SetGroup(0)
		require.NoError(t, err)
		require.Equal(t, 4, group)
		strategy, err := b.SetStrategy(registry.StrategyRoundRobin)
		require.NoError(t, err)
		require.Equal(t, registry.StrategyFallback, strategy)
		require.Equal(t, registry.StrategyRoundRobin, a.Info().Strategy, "the whole group's")
		timeout, err := a.SetAttemptTimeout(time.Second)
		require.NoError(t, err)
		require.Zero(t, timeout, "none was given")
		require.Equal(t, time.Second, a.Info().AttemptTimeout)
		_, err = a.SetBreakerPolicy(registry.BreakerPolicy{FailureThreshold: 9})
		require.NoError(t, err)

		require.Equal(t, uint64(3), a.Info().Attempts, "counts are kept")
		require.Equal(t, uint64(1), a.Info().InFlight)
		lease.Done(nil)
		var changes []string
		for _, e := range testkit.Events(t, events) {
			require.Equal(t, event.Changed, e.Kind)
			changes = append(changes, fmt.Sprintf("%s %s: %s → %s", e.Provider, e.Reason, e.From, e.To))
		}
		require.Equal(t, []string{
			"b priority: NORMAL → HIGH", "b group: 0 → 4", "b group: 4 → 0",
			"b strategy of the group: FALLBACK → ROUND_ROBIN", "a attempt timeout: 30s → 1s",
		}, changes[:5])
		require.Contains(t, changes[5], "FailureThreshold:9")
	})
}

func TestRegistration_BadSettingsChangeNothing(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		before, events := a.Info(), reg.Subscribe(0)
		_, err := a.SetPriority(77)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = a.SetStrategy(selection.Strategy{})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = a.SetStrategy(testkit.StrategyNumber(77))
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = a.SetAttemptTimeout(-1)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = a.SetBreakerPolicy(registry.BreakerPolicy{RecoveryTimeout: -1})
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.Equal(t, before, a.Info())
		require.Empty(t, testkit.Kinds(t, events))
	})
}

func TestRegistration_CannotChangeAfterLeaving(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		require.NoError(t, a.Unregister(t.Context()))
		require.NoError(t, a.Unregister(t.Context()), "again")
		_, err := a.SetPriority(registry.PriorityHigh)
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		_, err = a.SetGroup(1)
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		_, err = a.SetStrategy(registry.StrategyRoundRobin)
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		_, err = a.SetBreakerPolicy(registry.BreakerPolicy{})
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		_, err = a.SetAttemptTimeout(time.Second)
		require.ErrorIs(t, err, registry.ErrNotRegistered)
		require.ErrorIs(t, a.ForceOpen(time.Second, "x"), registry.ErrNotRegistered)
		require.ErrorIs(t, a.Reset(), registry.ErrNotRegistered)
		require.ErrorIs(t, a.MarkUnhealthy(nil), registry.ErrNotRegistered)
		require.ErrorIs(t, a.MarkHealthy(), registry.ErrNotRegistered)
		require.Equal(t, "a", a.Info().Name, "reading still works")
		require.False(t, a.Info().Eligible)
		_, ok := reg.Provider("chat", "a")
		require.False(t, ok)
	})
}

func TestRegistration_InputIsCopied(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Provider{
			Name: "a", Instance: testkit.Says("a"), Capabilities: []string{"x"}, Requires: []string{"r"},
			Metadata: map[string]string{"k": "v"},
		}
		a := testkit.Add(t, reg, p)
		query := registry.Query{Require: []string{"x"}}
		r := testkit.Chat.Bind(reg, query)
		want := a.Definition()
		scribble := func(capabilities, requires []string, metadata map[string]string) {
			capabilities[0], requires[0], metadata["k"], metadata["new"] = "!", "!", "!", "!"
		}
		scribble(p.Capabilities, p.Requires, p.Metadata)
		query.Require[0] = "!"
		info := a.Info()
		scribble(info.Capabilities, info.Requires, info.Metadata)
		definition := a.Definition()
		scribble(definition.Capabilities, definition.Requires, definition.Metadata)
		for info := range reg.All() {
			scribble(info.Capabilities, info.Requires, info.Metadata)
		}
		require.Equal(t, want, a.Definition())
		require.Equal(t, "a", testkit.MustAsk(t, r))
		explained := r.Explain()
		explained.Candidates[0].Provider = "!"
		require.Equal(t, "a", r.Explain().Candidates[0].Provider)
		snapshot := reg.Subscribe(0)
		snapshot.Snapshot()[0].Name = "!"
		require.Equal(t, "a", snapshot.Snapshot()[0].Name)
	})
}

func TestDefinition_RoundTripsAsJSON(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{
			Name: "a", Handler: "h", Capabilities: []string{"x"}, Priority: registry.PriorityHigh, Group: 2,
			Strategy: registry.StrategyRoundRobin, Mock: true, Window: 5, Version: "1.2", Description: "d",
			Endpoint: "https://host/v1", Requires: []string{"r"}, Metadata: map[string]string{"k": "v"}, LastResort: true, Weight: 3,
			Domain: "d", Tags: []string{"t"}, Region: "eu", Cost: 0.5, Team: "search", Documentation: "https://docs.example/chat",
			Endpoints:        map[string]string{"health": "https://host/healthz", "metrics": "https://host:9090/metrics"},
			ExpectedResponse: 1500 * time.Millisecond,
		})
		fields := reflect.ValueOf(a.Definition())
		for i := range fields.NumField() {
			name := fields.Type().Field(i).Name
			require.Equal(t, name == "NoTraffic", fields.Field(i).IsZero(), "%s is a weight of 0, and all others are set here", name)
		}
		text, err := json.Marshal(a.Definition())
		require.NoError(t, err)
		require.Contains(t, string(text), `"expected_response_time":"1.5s"`)
		var back registry.Definition
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, a.Definition(), back)
		again := testkit.Chat.Provider(back)
		again.Name, again.Instance = "b", testkit.Says("b")
		b := testkit.Add(t, reg, again)
		want := a.Definition()
		want.Name = "b"
		require.Equal(t, want, b.Definition())
	})
}

func TestDefinition_IsACopy(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Add(t, reg, testkit.Provider{
			Name: "p", Capabilities: []string{"a"}, Requires: []string{"b"}, Tags: []string{"c"}, Metadata: map[string]string{"d": "e"},
			Endpoints: map[string]string{"health": "https://host/healthz"},
		})
		d := p.Definition()
		d.Capabilities[0], d.Requires[0], d.Tags[0], d.Metadata["d"], d.Endpoints["health"] = "x", "x", "x", "x", "x"
		require.Equal(t, []string{"a"}, p.Definition().Capabilities)
		require.Equal(t, []string{"b"}, p.Definition().Requires)
		require.Equal(t, []string{"c"}, p.Definition().Tags)
		require.Equal(t, map[string]string{"d": "e"}, p.Definition().Metadata)
		require.Equal(t, map[string]string{"health": "https://host/healthz"}, p.Definition().Endpoints)
	})
}

func TestRegister_ConcurrentWithUnregister(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := testkit.Bind(reg)
		testkit.Add(t, reg, testkit.Provider{Name: "steady", Group: 1})
		var workers sync.WaitGroup
		for i := range 8 {
			workers.Go(func() {
				for range 30 {
					a, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: fmt.Sprint("p", i%4), Instance: testkit.Says("x"), Replace: true})
					if err != nil {
						continue
					}
					testkit.MustAsk(t, r)
					if err := a.Unregister(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		workers.Wait()
		require.Equal(t, 1, reg.Stats().Providers)
		require.Equal(t, "steady", testkit.MustAsk(t, r))
	})
}
