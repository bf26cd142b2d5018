package registry_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

// paths returns settings under which a call takes its fast path, and settings under which it takes the
// slow one. Both must have the same effects.
func paths() map[string]func(*registry.Options, *testkit.Provider) []registry.CallOption {
	return map[string]func(*registry.Options, *testkit.Provider) []registry.CallOption{
		"as it is": func(*registry.Options, *testkit.Provider) []registry.CallOption { return nil },
		"with panics as errors": func(o *registry.Options, _ *testkit.Provider) []registry.CallOption {
			o.PanicsAsErrors = true
			return nil
		},
		"with an option": func(*registry.Options, *testkit.Provider) []registry.CallOption {
			return []registry.CallOption{registry.ReportTo(new(registry.CallReport))}
		},
		"with a hook": func(o *registry.Options, _ *testkit.Provider) []registry.CallOption {
			o.Hooks.AfterCall = func(context.Context, registry.CallReport) {}
			return nil
		},
		"with an authoriser": func(o *registry.Options, _ *testkit.Provider) []registry.CallOption {
			o.Authorize = func(context.Context, string, string, string) error { return nil }
			return nil
		},
		"with limits": func(_ *registry.Options, p *testkit.Provider) []registry.CallOption {
			p.Limits = registry.LimitPolicy{MaxConcurrent: 3, Rate: 1 << 20}
			return nil
		},
	}
}

// onEveryPath runs a test on two providers for each of [paths].
func onEveryPath(t *testing.T, p testkit.Provider, test func(t *testing.T, reg *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption)) {
	t.Helper()
	for name, configure := range paths() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, settings := p, registry.Options{}
			options := configure(&settings, &p)
			testkit.Bubble(t, settings, func(t *testing.T, reg *registry.Registry) {
				for _, p.Name = range []string{"a", "b"} {
					testkit.Add(t, reg, p)
				}
				test(t, reg, testkit.Bind(reg), options)
			})
		})
	}
}

func registrationOf(t *testing.T, reg *registry.Registry, name string) *registry.Registration {
	t.Helper()
	found, ok := reg.Provider("chat", name)
	require.True(t, ok)
	return found
}

func TestCallPaths_AdvanceTurnsOnce(t *testing.T) {
	t.Parallel()
	onEveryPath(t, testkit.Provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
		_, err := registrationOf(t, reg, "a").SetStrategy(registry.StrategyRoundRobin)
		require.NoError(t, err)
		var order []string
		for range 6 {
			order = append(order, testkit.MustAsk(t, r, options...))
		}
		require.Equal(t, []string{"a", "b", "a", "b", "a", "b"}, order)
	})
}

func TestCallPaths_FailOverAfterFirstFailure(t *testing.T) {
	t.Parallel()
	onEveryPath(t, testkit.Provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
		var asked []string
		answer, err := registry.Call(t.Context(), r, func(ctx context.Context, m testkit.ChatModel) (string, error) {
			name, err := m.Chat(ctx, "?")
			asked = append(asked, name)
			if len(asked) == 1 {
				return "", testkit.ErrDown
			}
			return name, err
		}, options...)
		require.NoError(t, err)
		require.Equal(t, "b", answer)
		require.Equal(t, []string{"a", "b"}, asked)
		testkit.RequireCounts(t, registrationOf(t, reg, "a"), 0, 1, 0, 0)
		testkit.RequireCounts(t, registrationOf(t, reg, "b"), 1, 0, 0, 0)
		require.Equal(t, 1, registrationOf(t, reg, "a").Breaker().ConsecutiveFailures)
		stats := reg.Stats()
		require.Equal(t, []uint64{1, 1, 0}, []uint64{stats.Lookups, stats.Hits, stats.Misses})
	})
}

func TestCallPaths_ReportEveryAttempt(t *testing.T) {
	t.Parallel()
	onEveryPath(t, testkit.Provider{}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
		_, err := registry.Call(t.Context(), r, func(context.Context, testkit.ChatModel) (string, error) {
			time.Sleep(time.Second)
			return "", testkit.ErrDown
		}, options...)
		var failure *registry.CallError
		require.ErrorAs(t, err, &failure)
		var told []string
		for _, a := range failure.Attempts {
			told = append(told, fmt.Sprintf("%s %s %v %v", a.Provider, a.Why, a.Class, a.Duration))
		}
		unknown := verdict.ClassUnknown
		require.Equal(t, []string{fmt.Sprintf("a first %v 1s", unknown), fmt.Sprintf("b failover %v 1s", unknown)}, told)
	})
}

func TestCallPaths_RetryBeforeFailover(t *testing.T) {
	t.Parallel()
	onEveryPath(t, testkit.Provider{Retry: registry.RetryPolicy{Retries: 2}}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
		var order string
		_, err := registry.Call(t.Context(), r, func(ctx context.Context, m testkit.ChatModel) (string, error) {
			name, _ := m.Chat(ctx, "?")
			order += name
			return "", verdict.As(testkit.ErrDown, verdict.Verdict{Class: verdict.ClassServerError})
		}, options...)
		require.ErrorIs(t, err, testkit.ErrDown)
		require.Equal(t, "aaabbb", order)
	})
}

func TestCallPaths_RecordPanics(t *testing.T) {
	t.Parallel()
	onEveryPath(t, testkit.Provider{AttemptTimeout: registry.NoTimeout}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
		var err error
		func() {
			defer func() {
				if value := recover(); value != nil {
					err = &verdict.PanicError{Value: value}
				}
			}()
			_, err = registry.Call(t.Context(), r, func(context.Context, testkit.ChatModel) (string, error) {
				time.Sleep(time.Second)
				panic("boom")
			}, options...)
		}()
		var panicked *verdict.PanicError
		require.ErrorAs(t, err, &panicked)
		require.Equal(t, "boom", panicked.Value)
		var failure *registry.CallError
		if errors.As(err, &failure) { // the call has gone on to the other one
			require.Equal(t, verdict.ClassPanic, failure.Attempts[0].Class)
		}
		a := registrationOf(t, reg, "a")
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
		require.Zero(t, a.Info().InFlight)
		require.Equal(t, 1, a.Breaker().ConsecutiveFailures)
	})
}

func TestCallPaths_RecordGoexit(t *testing.T) {
	t.Parallel()
	onEveryPath(t, testkit.Provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = registry.Call(t.Context(), r, func(context.Context, testkit.ChatModel) (string, error) {
				runtime.Goexit()
				return "", nil
			}, options...)
		}()
		<-done
		a := registrationOf(t, reg, "a")
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
		require.Zero(t, a.Info().InFlight)
		require.EqualValues(t, 1, a.Info().Attempts)
	})
}

func TestCallPaths_MeasureLatency(t *testing.T) {
	t.Parallel()
	onEveryPath(t, testkit.Provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
		for _, took := range []time.Duration{time.Second, 3 * time.Second} {
			_, err := registry.Call(t.Context(), r, func(context.Context, testkit.ChatModel) (string, error) {
				time.Sleep(took)
				return "", nil
			}, options...)
			require.NoError(t, err)
		}
		require.Equal(t, 2*time.Second, registrationOf(t, reg, "a").Info().MeanLatency)
	})
}

func TestCallPaths_EndContextWithFunction(t *testing.T) {
	t.Parallel()
	onEveryPath(t, testkit.Provider{}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
		for _, failing := range []bool{false, true} {
			var kept []context.Context
			_, err := registry.Call(t.Context(), r, func(ctx context.Context, _ testkit.ChatModel) (string, error) {
				kept = append(kept, ctx)
				if failing {
					return "", testkit.ErrDown
				}
				return "", nil
			}, options...)
			require.Equal(t, failing, err != nil)
			for _, ctx := range kept {
				require.ErrorIs(t, ctx.Err(), context.Canceled)
			}
		}
	})
}

func TestCallPaths_DrainWaitsForFunction(t *testing.T) {
	t.Parallel()
	onEveryPath(t, testkit.Provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
		began, returned := time.Now(), make(chan error, 1)
		go func() {
			_, err := registry.Call(t.Context(), r, func(context.Context, testkit.ChatModel) (string, error) {
				time.Sleep(3 * time.Second)
				return "", nil
			}, options...)
			returned <- err
		}()
		time.Sleep(time.Second)
		require.NoError(t, registrationOf(t, reg, "a").Unregister(t.Context()))
		require.Equal(t, 3*time.Second, time.Since(began))
		require.NoError(t, <-returned)
	})
}

// The handler of a query is the caller whose rate is used up, also after a failure.
func TestCallPaths_UseRateOfHandler(t *testing.T) {
	t.Parallel()
	onEveryPath(t, testkit.Provider{}, func(t *testing.T, reg *registry.Registry, _ *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
		b := registrationOf(t, reg, "b")
		_, err := b.SetLimits(registry.LimitPolicy{Rate: 0.001, Burst: 1})
		require.NoError(t, err)
		for _, handler := range []string{"h", "i"} {
			r := testkit.Chat.Bind(reg, registry.Query{Handler: handler})
			for range 2 {
				_, err := registry.Call(t.Context(), r, func(context.Context, testkit.ChatModel) (string, error) { return "", testkit.ErrDown }, options...)
				require.ErrorIs(t, err, testkit.ErrDown)
			}
		}
		require.EqualValues(t, 2, b.Info().Attempts, "one of each handler")
	})
}

func TestCallPaths_LeaveTimeForOthers(t *testing.T) {
	t.Parallel()
	onEveryPath(t, testkit.Provider{}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var limits []time.Duration
		_, err := registry.Call(ctx, r, func(ctx context.Context, _ testkit.ChatModel) (string, error) {
			deadline, _ := ctx.Deadline()
			limits = append(limits, time.Until(deadline))
			return "", testkit.ErrDown
		}, options...)
		require.ErrorIs(t, err, testkit.ErrDown)
		require.Equal(t, []time.Duration{7500 * time.Millisecond, 10 * time.Second}, limits)
	})
}

func TestCallPaths_RunNothingAfterDeadline(t *testing.T) {
	t.Parallel()
	onEveryPath(t, testkit.Provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := testkit.Ask(ctx, r, options...)
		require.ErrorIs(t, err, context.Canceled)
		testkit.RequireCounts(t, registrationOf(t, reg, "a"), 0, 0, 0, 0)
		require.EqualValues(t, 1, reg.Stats().Misses)
	})
}

// A caller in a hurry says nothing about a provider that takes as long as ever, however often.
func TestCallPaths_ForgiveCutsThatProveNothing(t *testing.T) {
	t.Parallel()
	onEveryPath(t, testkit.Provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
		slowly := func(ctx context.Context, m testkit.ChatModel) (string, error) {
			name, err := m.Chat(ctx, "?")
			if name == "a" {
				select {
				case <-time.After(1500 * time.Millisecond):
				case <-ctx.Done():
					return "", ctx.Err()
				}
			}
			return name, err
		}
		hurried := func(times int) {
			for range times {
				ctx, cancel := context.WithTimeout(t.Context(), 1250*time.Millisecond)
				answer, err := registry.Call(ctx, r, slowly, options...)
				cancel()
				require.NoError(t, err)
				require.Equal(t, "b", answer)
			}
		}
		patient := func() {
			answer, err := registry.Call(t.Context(), r, slowly, options...)
			require.NoError(t, err)
			require.Equal(t, "a", answer)
		}
		a := registrationOf(t, reg, "a")
		patient()
		hurried(20)
		testkit.RequireCounts(t, a, 1, 0, 20, 0)
		require.Zero(t, a.Breaker().ConsecutiveFailures)
		patient()
		hurried(3)
		testkit.RequireCounts(t, a, 2, 0, 23, 0)
	})
}

func TestCallPaths_RefundBudgetOnSuccess(t *testing.T) {
	t.Parallel()
	policy := registry.RetryPolicy{Retries: 1, Budget: 4, Refund: 0.5, Floor: 0.0001}
	onEveryPath(t, testkit.Provider{Retry: policy, Breaker: testkit.NeverOpens()}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
		require.NoError(t, registrationOf(t, reg, "b").Unregister(t.Context()))
		attempts := func(err error) (n int) {
			_, _ = registry.Call(t.Context(), r, func(context.Context, testkit.ChatModel) (string, error) { n++; return "", err }, options...)
			return n
		}
		down := verdict.As(testkit.ErrDown, verdict.Verdict{Class: verdict.ClassServerError})
		for range 5 {
			attempts(down)
		}
		require.Equal(t, 1, attempts(down), "its budget is spent")
		for range 6 {
			require.Equal(t, 1, attempts(nil))
		}
		require.Equal(t, 1, attempts(down), "3 tokens, and then 2 of 4")
		for range 4 {
			require.Equal(t, 1, attempts(nil))
		}
		require.Equal(t, 2, attempts(down), "4 tokens, and then 3")
	})
}

// onSlowPath reports whether its caller runs in a call on the slow path. It reads the stack.
func onSlowPath() bool {
	var callers [16]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers[:])])
	for {
		frame, more := frames.Next()
		if strings.Contains(frame.Function, "continueCall") {
			return true
		}
		if !more {
			return false
		}
	}
}

func TestCallPaths_SlowPathRunsOnlyIfNeeded(t *testing.T) {
	t.Parallel()
	onEveryPath(t, testkit.Provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
		short := strings.HasSuffix(t.Name(), "as_it_is")
		for _, strategy := range []selection.Strategy{registry.StrategyFallback, registry.StrategyRoundRobin} {
			for _, name := range []string{"a", "b"} {
				_, err := registrationOf(t, reg, name).SetStrategy(strategy)
				require.NoError(t, err)
			}
			for range 3 {
				_, err := registry.Call(t.Context(), r, func(context.Context, testkit.ChatModel) (string, error) {
					require.Equal(t, short, !onSlowPath())
					return "", nil
				}, options...)
				require.NoError(t, err)
			}
		}
	})
}

func TestCallPaths_PanickingContextLeaksNothing(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{time.Second, registry.NoTimeout} {
		onEveryPath(t, testkit.Provider{AttemptTimeout: timeout}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[testkit.ChatModel], options []registry.CallOption) {
			testkit.MustAsk(t, r, options...)
			for name, ctx := range map[string]context.Context{
				"Deadline":  testkit.BadDeadlineContext{Context: t.Context()},
				"AfterFunc": testkit.BadAfterFuncContext{Context: t.Context(), DoneChannel: make(chan struct{})},
			} {
				for _, err := range []error{nil, testkit.ErrDown} {
					_ = testkit.Recovered(func() {
						_, _ = registry.Call(ctx, r, func(ctx context.Context, _ testkit.ChatModel) (string, error) {
							_ = ctx.Err()
							return "", err
						}, options...)
					})
					for info := range reg.All() {
						require.Zero(t, info.InFlight, name)
						require.Equal(t, info.Attempts, info.Successes+info.Failures+info.Ignored+info.Limited, name)
					}
				}
			}
		})
	}
}
