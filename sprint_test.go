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
	"github.com/capreg/registry/verdict"
)

// ways are settings under which a call takes the short way, and those under which it
// takes the long one: it must not be told apart by what it does.
func ways() map[string]func(*registry.Options, *provider) []registry.CallOption {
	return map[string]func(*registry.Options, *provider) []registry.CallOption{
		"as it is": func(*registry.Options, *provider) []registry.CallOption { return nil },
		"with panics as errors": func(o *registry.Options, _ *provider) []registry.CallOption {
			o.PanicsAsErrors = true
			return nil
		},
		"with an option": func(*registry.Options, *provider) []registry.CallOption {
			return []registry.CallOption{registry.AttemptTimeout(30 * time.Second)}
		},
		"with a hook": func(o *registry.Options, _ *provider) []registry.CallOption {
			o.AfterCall = func(context.Context, registry.CallReport) {}
			return nil
		},
		"with an authoriser": func(o *registry.Options, _ *provider) []registry.CallOption {
			o.Authorize = func(context.Context, string, string, string) error { return nil }
			return nil
		},
		"with limits": func(_ *registry.Options, p *provider) []registry.CallOption {
			p.Limits = registry.LimitPolicy{MaxConcurrent: 3}
			return nil
		},
	}
}

// onEveryWay runs a test on two providers in each way.
func onEveryWay(t *testing.T, p provider, test func(t *testing.T, reg *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption)) {
	t.Helper()
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, settings := p, registry.Options{}
			options := way(&settings, &p)
			bubble(t, settings, func(t *testing.T, reg *registry.Registry) {
				for _, p.Name = range []string{"a", "b"} {
					add(t, reg, p)
				}
				test(t, reg, bind(reg), options)
			})
		})
	}
}

func registrationOf(t *testing.T, reg *registry.Registry, name string) *registry.Registration {
	t.Helper()
	found, ok := reg.Provider(name)
	require.True(t, ok)
	return found
}

func TestTurnsAreTakenOnceWhicheverWayACallGoes(t *testing.T) {
	t.Parallel()
	onEveryWay(t, provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption) {
		_, err := registrationOf(t, reg, "a").SetStrategy(registry.StrategyRoundRobin)
		require.NoError(t, err)
		var order []string
		for range 6 {
			order = append(order, asked(t, r, options...))
		}
		require.Equal(t, []string{"a", "b", "a", "b", "a", "b"}, order)
	})
}

func TestFirstFailureMovesOnWhicheverWayACallGoes(t *testing.T) {
	t.Parallel()
	onEveryWay(t, provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption) {
		var asked []string
		answer, err := registry.Call(t.Context(), r, func(ctx context.Context, m chatModel) (string, error) {
			name, err := m.Chat(ctx, "?")
			asked = append(asked, name)
			if len(asked) == 1 {
				return "", errDown
			}
			return name, err
		}, options...)
		require.NoError(t, err)
		require.Equal(t, "b", answer)
		require.Equal(t, []string{"a", "b"}, asked)
		requireCounts(t, registrationOf(t, reg, "a"), 0, 1, 0, 0)
		requireCounts(t, registrationOf(t, reg, "b"), 1, 0, 0, 0)
		require.Equal(t, 1, registrationOf(t, reg, "a").Breaker().ConsecutiveFailures)
		stats := reg.Stats()
		require.Equal(t, []uint64{1, 1, 0}, []uint64{stats.Lookups, stats.Hits, stats.Misses})
	})
}

func TestEveryAttemptIsToldWhicheverWayACallGoes(t *testing.T) {
	t.Parallel()
	onEveryWay(t, provider{}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption) {
		_, err := registry.Call(t.Context(), r, func(context.Context, chatModel) (string, error) {
			time.Sleep(time.Second)
			return "", errDown
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

func TestRetriesComeBeforeFailoverWhicheverWayACallGoes(t *testing.T) {
	t.Parallel()
	onEveryWay(t, provider{Retry: registry.RetryPolicy{Retries: 2}}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption) {
		var order string
		_, err := registry.Call(t.Context(), r, func(ctx context.Context, m chatModel) (string, error) {
			name, _ := m.Chat(ctx, "?")
			order += name
			return "", verdict.As(errDown, verdict.Verdict{Class: verdict.ClassServerError})
		}, options...)
		require.ErrorIs(t, err, errDown)
		require.Equal(t, "aaabbb", order)
	})
}

func TestPanicsAreRecordedWhicheverWayACallGoes(t *testing.T) {
	t.Parallel()
	onEveryWay(t, provider{AttemptTimeout: registry.NoTimeout}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption) {
		var err error
		func() {
			defer func() {
				if value := recover(); value != nil {
					err = &registry.PanicError{Value: value}
				}
			}()
			_, err = registry.Call(t.Context(), r, func(context.Context, chatModel) (string, error) {
				time.Sleep(time.Second)
				panic("boom")
			}, options...)
		}()
		var panicked *registry.PanicError
		require.ErrorAs(t, err, &panicked)
		require.Equal(t, "boom", panicked.Value)
		var failure *registry.CallError
		if errors.As(err, &failure) { // the call has gone on to the other one
			require.Equal(t, verdict.ClassPanic, failure.Attempts[0].Class)
		}
		a := registrationOf(t, reg, "a")
		requireCounts(t, a, 0, 1, 0, 0)
		require.Zero(t, a.Info().InFlight)
		require.Equal(t, 1, a.Breaker().ConsecutiveFailures)
	})
}

func TestExitsAreRecordedWhicheverWayACallGoes(t *testing.T) {
	t.Parallel()
	onEveryWay(t, provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = registry.Call(t.Context(), r, func(context.Context, chatModel) (string, error) {
				runtime.Goexit()
				return "", nil
			}, options...)
		}()
		<-done
		a := registrationOf(t, reg, "a")
		requireCounts(t, a, 0, 1, 0, 0)
		require.Zero(t, a.Info().InFlight)
		require.EqualValues(t, 1, a.Info().Attempts)
	})
}

func TestLatencyIsMeasuredWhicheverWayACallGoes(t *testing.T) {
	t.Parallel()
	onEveryWay(t, provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption) {
		for _, took := range []time.Duration{time.Second, 3 * time.Second} {
			_, err := registry.Call(t.Context(), r, func(context.Context, chatModel) (string, error) {
				time.Sleep(took)
				return "", nil
			}, options...)
			require.NoError(t, err)
		}
		require.Equal(t, 2*time.Second, registrationOf(t, reg, "a").Info().MeanLatency)
	})
}

func TestContextOfTheFunctionEndsWithItWhicheverWayACallGoes(t *testing.T) {
	t.Parallel()
	onEveryWay(t, provider{}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption) {
		for _, failing := range []bool{false, true} {
			var kept []context.Context
			_, err := registry.Call(t.Context(), r, func(ctx context.Context, _ chatModel) (string, error) {
				kept = append(kept, ctx)
				if failing {
					return "", errDown
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

func TestDrainWaitsForTheFunctionWhicheverWayACallGoes(t *testing.T) {
	t.Parallel()
	onEveryWay(t, provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption) {
		began, returned := time.Now(), make(chan error, 1)
		go func() {
			_, err := registry.Call(t.Context(), r, func(context.Context, chatModel) (string, error) {
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
func TestRateOfTheHandlerIsUsedWhicheverWayACallGoes(t *testing.T) {
	t.Parallel()
	onEveryWay(t, provider{}, func(t *testing.T, reg *registry.Registry, _ *registry.Resolver[chatModel], options []registry.CallOption) {
		b := registrationOf(t, reg, "b")
		_, err := b.SetLimits(registry.LimitPolicy{Rate: 0.001, Burst: 1})
		require.NoError(t, err)
		for _, handler := range []string{"h", "i"} {
			r := chat.Bind(reg, registry.Query{Handler: handler})
			for range 2 {
				_, err := registry.Call(t.Context(), r, func(context.Context, chatModel) (string, error) { return "", errDown }, options...)
				require.ErrorIs(t, err, errDown)
			}
		}
		require.EqualValues(t, 2, b.Info().Attempts, "one of each handler")
	})
}

func TestTimeIsLeftForOthersWhicheverWayACallGoes(t *testing.T) {
	t.Parallel()
	onEveryWay(t, provider{}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var limits []time.Duration
		_, err := registry.Call(ctx, r, func(ctx context.Context, _ chatModel) (string, error) {
			deadline, _ := ctx.Deadline()
			limits = append(limits, time.Until(deadline))
			return "", errDown
		}, options...)
		require.ErrorIs(t, err, errDown)
		require.Equal(t, []time.Duration{5 * time.Second, 10 * time.Second}, limits)
	})
}

func TestNobodyIsEnteredForACallerWhoseTimeIsOverWhicheverWayACallGoes(t *testing.T) {
	t.Parallel()
	onEveryWay(t, provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := ask(ctx, r, options...)
		require.ErrorIs(t, err, context.Canceled)
		requireCounts(t, registrationOf(t, reg, "a"), 0, 0, 0, 0)
		require.EqualValues(t, 1, reg.Stats().Misses)
	})
}

// A caller in a hurry says nothing about a provider that takes as long as ever, but for
// a few times in a row.
func TestAttemptThatIsCutForTheSakeOfOthersIsForgivenAFewTimesWhicheverWayACallGoes(t *testing.T) {
	t.Parallel()
	onEveryWay(t, provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption) {
		slowly := func(ctx context.Context, m chatModel) (string, error) {
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
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
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
		hurried(3)
		requireCounts(t, a, 1, 0, 3, 0)
		require.Zero(t, a.Breaker().ConsecutiveFailures)
		hurried(1)
		requireCounts(t, a, 1, 1, 3, 0)
		patient()
		hurried(3)
		requireCounts(t, a, 2, 1, 6, 0)
	})
}

func TestSuccessesRefundTheBudgetWhicheverWayACallGoes(t *testing.T) {
	t.Parallel()
	policy := registry.RetryPolicy{Retries: 1, Budget: 4, Refund: 0.5, Floor: 0.0001}
	onEveryWay(t, provider{Retry: policy, Breaker: patient()}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption) {
		require.NoError(t, registrationOf(t, reg, "b").Unregister(t.Context()))
		attempts := func(err error) (n int) {
			_, _ = registry.Call(t.Context(), r, func(context.Context, chatModel) (string, error) { n++; return "", err }, options...)
			return n
		}
		down := verdict.As(errDown, verdict.Verdict{Class: verdict.ClassServerError})
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

// atLength reports whether the function that asks runs in a call that has taken the
// long way, as the stack tells.
func atLength() bool {
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

func TestCallTakesTheLongWayOnlyWhenItHasTo(t *testing.T) {
	t.Parallel()
	onEveryWay(t, provider{}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption) {
		short := strings.HasSuffix(t.Name(), "as_it_is")
		for _, strategy := range []registry.Strategy{registry.StrategyFallback, registry.StrategyRoundRobin} {
			for _, name := range []string{"a", "b"} {
				_, err := registrationOf(t, reg, name).SetStrategy(strategy)
				require.NoError(t, err)
			}
			for range 3 {
				_, err := registry.Call(t.Context(), r, func(context.Context, chatModel) (string, error) {
					require.Equal(t, short, !atLength())
					return "", nil
				}, options...)
				require.NoError(t, err)
			}
		}
	})
}

func TestContextThatPanicsLeaksNothingWhicheverWayACallGoes(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{time.Second, registry.NoTimeout} {
		onEveryWay(t, provider{AttemptTimeout: timeout}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[chatModel], options []registry.CallOption) {
			asked(t, r, options...)
			for name, ctx := range map[string]context.Context{
				"Deadline":  badDeadline{t.Context()},
				"AfterFunc": badAfterFunc{t.Context(), make(chan struct{})},
			} {
				for _, err := range []error{nil, errDown} {
					_ = recovered(func() {
						_, _ = registry.Call(ctx, r, func(ctx context.Context, _ chatModel) (string, error) {
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
