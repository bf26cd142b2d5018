package registry_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selectors"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

func TestCall_FailsOverToNextProviderOnly(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		c := testkit.Add(t, reg, testkit.Provider{Name: "c"})
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)))
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
		testkit.RequireCounts(t, b, 1, 0, 0, 0)
		testkit.RequireCounts(t, c, 0, 0, 0, 0)
	})
}

func TestCall_TotalFailureTriesEachOnceAndNamesAll(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		errOther := errors.New("multi\nline")
		slow := testkit.ChatFunc(func(context.Context, string) (string, error) {
			time.Sleep(2 * time.Second)
			return "", errOther
		})
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: slow, Group: 1})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		testkit.RequireOneLine(t, err)
		require.ErrorIs(t, err, testkit.ErrDown)
		require.ErrorIs(t, err, errOther)
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, []registry.Attempt{
			{Provider: "a", Why: "first", Class: verdict.ClassUnknown, Err: testkit.ErrDown},
			{Provider: "b", Why: "failover", Class: verdict.ClassUnknown, Err: errOther, Duration: 2 * time.Second},
		}, failed.Attempts)
		require.Empty(t, failed.Skipped())
		require.Contains(t, err.Error(), `a: unknown after 0s: down; b: unknown after 2s: multi line`)
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
		testkit.RequireCounts(t, b, 0, 1, 0, 0)
		require.Zero(t, b.Info().MeanLatency, "of answers")
	})
}

func TestCall_ErrorNamesSkippedProviders(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.NoError(t, b.ForceOpen(time.Hour, "maintenance"))
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, testkit.ErrDown)
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.Len(t, failed.Skipped(), 1)
		require.Equal(t, "b", failed.Skipped()[0].Provider)
		require.Equal(t, time.Hour, failed.Skipped()[0].RetryIn)
		require.Zero(t, failed.RetryIn, "a can be asked again now")
	})
}

func TestCall_ParkedProviderDoesNotDecideTheError(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		errKey := verdict.Fatal(errors.New("bad key"), 0)
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(errKey)})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.Fails(testkit.ErrDown)})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg)) // parks a
		require.NotErrorIs(t, err, registry.ErrCredentials)
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.NotErrorIs(t, err, registry.ErrCredentials)
		require.ErrorIs(t, err, registry.ErrCoolingDown)
		require.ErrorIs(t, err, testkit.ErrDown)
		require.NoError(t, b.ForceOpen(time.Hour, "test"))
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.NotErrorIs(t, err, registry.ErrCredentials)
		require.ErrorIs(t, err, errKey, "its cause is still there")
		require.NoError(t, b.Unregister(t.Context()))
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, registry.ErrCredentials)
		require.False(t, a.Info().Cooldown.Until.IsZero())
	})
}

func TestCall_PermanentErrorReturnsAtOnceWithoutBlame(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		mistake := verdict.Permanent(errors.New("no prompt"))
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(mistake), Breaker: registry.BreakerPolicy{FailureThreshold: 1}})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, mistake)
		testkit.RequireCounts(t, a, 1, 0, 0, 0)
		testkit.RequireCounts(t, b, 0, 0, 0, 0)
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
	})
}

func TestCall_PermanentErrorEndsFailuresInARow(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var next error
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) { return "", next })})
		for range 20 {
			next = testkit.ErrDown
			for range 4 {
				_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
				require.ErrorIs(t, err, testkit.ErrDown)
			}
			next = verdict.Permanent(errors.New("mistake")) // an answer in time
			_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
			require.ErrorIs(t, err, next)
		}
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
	})
}

func TestCall_TooLongRequestGoesOnlyToLargerOrUnknownWindows(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		tooLong := verdict.As(errors.New("too long"), verdict.Verdict{Class: verdict.ClassTooLong})
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(tooLong), Window: 8000})
		same := testkit.Add(t, reg, testkit.Provider{Name: "same", Window: 8000})
		unknown := testkit.Add(t, reg, testkit.Provider{Name: "unknown", Instance: testkit.Fails(tooLong)})
		larger := testkit.Add(t, reg, testkit.Provider{Name: "larger", Window: 32000})
		require.Equal(t, "larger", testkit.MustAsk(t, testkit.Bind(reg)))
		testkit.RequireCounts(t, a, 1, 0, 0, 0)
		testkit.RequireCounts(t, same, 0, 0, 0, 0)
		testkit.RequireCounts(t, unknown, 1, 0, 0, 0)
		testkit.RequireCounts(t, larger, 1, 0, 0, 0)
	})
}

func TestCall_RefusedContentFailsOverOnlyIfAllowed(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		refused := verdict.As(errors.New("refused"), verdict.Verdict{Class: verdict.ClassRefused})
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(refused)})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, refused)
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Chat.Bind(reg, registry.Query{TryRefused: true})))
	})
}

func TestCall_PanicIsRecordedAndRaisedAgain(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) { panic("boom") })})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.PanicsWithValue(t, "boom", func() { _, _ = testkit.Ask(t.Context(), testkit.Bind(reg)) })
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
		require.Equal(t, 1, a.Breaker().ConsecutiveFailures)
	})
}

func TestCall_PanicsAsErrorsFailOver(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{PanicsAsErrors: true}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) { panic(testkit.ErrDown) })})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		require.Equal(t, "b", testkit.MustAsk(t, testkit.Bind(reg)))
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
		require.NoError(t, b.Unregister(t.Context()))
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, testkit.ErrDown, "a panic with an error keeps it")
		var panicked *verdict.PanicError
		require.ErrorAs(t, err, &panicked)
		require.Contains(t, string(panicked.Stack), "call_test.go")
		_, err = testkit.Ask(t.Context(), testkit.Bind(reg), registry.OnceOnly())
		require.ErrorAs(t, err, &panicked)
	})
}

func TestCall_GoexitIsAFailureAndHoldsNothing(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{PanicsAsErrors: true}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) { runtime.Goexit(); return "", nil })})
		var exited sync.WaitGroup
		exited.Go(func() { _, _ = testkit.Ask(t.Context(), testkit.Bind(reg)) })
		exited.Wait()
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
	})
}

func TestCall_BrokenClassifierLosesNoOutcome(t *testing.T) {
	t.Parallel()
	exit := false
	classify := func(error) verdict.Verdict {
		if exit {
			runtime.Goexit()
		}
		panic("classifier")
	}
	testkit.Bubble(t, registry.Options{Classify: classify}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, testkit.ErrDown)
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
		exit = true
		var exited sync.WaitGroup
		exited.Go(func() { _, _ = testkit.Ask(t.Context(), testkit.Bind(reg)) })
		exited.Wait()
		testkit.RequireCounts(t, a, 0, 2, 0, 0)
	})
}

func TestCall_ErrorsWithPanickingMethodsAreFailures(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var broken *brokenError
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(broken)})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		testkit.RequireOneLine(t, err)
		testkit.RequireCounts(t, a, 0, 1, 0, 0)
	})
}

type brokenError struct{ text string }

func (b *brokenError) Error() string { return b.text } // panics on nil

func TestCall_ClassifiersRunFromProviderToRegistry(t *testing.T) {
	t.Parallel()
	says := func(class verdict.Class) verdict.Classifier {
		return func(error) verdict.Verdict { return verdict.Verdict{Class: class} }
	}
	testkit.Bubble(t, registry.Options{Classify: says(verdict.ClassBadRequest)}, func(t *testing.T, reg *registry.Registry) {
		require.NoError(t, testkit.Chat.Classify(reg, func(err error) verdict.Verdict {
			if errors.Is(err, testkit.ErrDown) {
				return verdict.Verdict{Class: verdict.ClassTransport}
			}
			return verdict.Verdict{} // passes
		}))
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown), Classify: says(verdict.ClassServerError)})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.Fails(testkit.ErrDown), Classify: says(verdict.ClassUnknown)}) // passes
		testkit.Add(t, reg, testkit.Provider{Name: "c", Instance: testkit.Fails(errors.New("something else"))})
		testkit.Add(t, reg, testkit.Provider{Name: "d"})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		var classes []verdict.Class
		for _, a := range failed.Attempts {
			classes = append(classes, a.Class)
		}
		require.Equal(t, []verdict.Class{verdict.ClassServerError, verdict.ClassTransport, verdict.ClassBadRequest}, classes)
		require.NoError(t, testkit.Chat.Classify(reg, nil))
		require.ErrorIs(t, registry.NewService[int]("chat").Classify(reg, nil), registry.ErrConflict)
		require.ErrorIs(t, testkit.Chat.Classify(nil, nil), registry.ErrInvalid)
	})
}

func TestCall_StatedVerdictComesBeforeClassifiers(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{Classify: func(error) verdict.Verdict { return verdict.Verdict{Class: verdict.ClassServerError} }}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		r := testkit.Bind(reg)
		l, err := r.Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, verdict.ClassIgnored, l.Done(verdict.Ignore(testkit.ErrDown)))
	})
}

func TestCall_NilArgumentsAreErrors(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		_, err := registry.Call[testkit.ChatModel, string](t.Context(), testkit.Bind(reg), nil)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = testkit.Ask(t.Context(), nil)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = testkit.Ask(t.Context(), &registry.Resolver[testkit.ChatModel]{})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = testkit.Ask(t.Context(), testkit.Chat.Bind(nil, registry.Query{}))
		require.ErrorIs(t, err, registry.ErrInvalid)
		for _, timeout := range []time.Duration{0, -1} {
			_, err = testkit.Ask(t.Context(), testkit.Bind(reg), registry.AttemptTimeout(timeout))
			require.ErrorIs(t, err, registry.ErrInvalid)
			require.ErrorContains(t, err, "AttemptTimeout")
		}
	})
}

func TestCall_ConcurrentFailuresAreAllCounted(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) { time.Sleep(time.Second); return "", testkit.ErrDown })})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b"})
		var callers sync.WaitGroup
		for range 200 {
			callers.Go(func() { _, _ = testkit.Ask(t.Context(), testkit.Bind(reg)) })
		}
		synctest.Wait()
		require.Equal(t, uint64(200), a.Info().InFlight)
		callers.Wait()
		testkit.RequireCounts(t, a, 0, 200, 0, 0)
		testkit.RequireCounts(t, b, 200, 0, 0, 0)
		require.Equal(t, uint64(1), a.Breaker().Opened)
	})
}

func TestCall_DoesNotRetryFailedProvidersAfterWaiting(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var asked []string
		limited := false
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) {
			asked = append(asked, "a")
			if limited {
				return "", testkit.ErrDown
			}
			limited = true
			return "", verdict.RateLimited(testkit.ErrDown, time.Second)
		})})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.Answers(func() (string, error) {
			asked = append(asked, "b")
			return "", testkit.ErrDown
		})})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := testkit.Ask(ctx, testkit.Bind(reg), registry.WaitForCooldown())
		require.ErrorIs(t, err, testkit.ErrDown)
		require.Equal(t, []string{"a", "b", "a"}, asked)
	})
}

func TestCall_DoesNotWaitForTooSmallWindow(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "small", Window: 10, Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, 20*time.Second))})
		testkit.Add(t, reg, testkit.Provider{Name: "big", Window: 100, Instance: testkit.Fails(verdict.As(testkit.ErrDown, verdict.Verdict{Class: verdict.ClassTooLong}))})
		r := testkit.Bind(reg)
		_, err := testkit.Ask(t.Context(), r) // small cools down
		require.Error(t, err)
		began := time.Now()
		_, err = testkit.Ask(t.Context(), r, registry.WaitForCooldown())
		require.Error(t, err)
		require.Zero(t, time.Since(began), "small is too small: nothing to wait for")
	})
}

func TestCall_TooSmallWindowsTakeNoTimeFromOthers(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Window: 100, Instance: testkit.Fails(verdict.As(testkit.ErrDown, verdict.Verdict{Class: verdict.ClassTooLong}))})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Window: 200, Instance: testkit.ChatFunc(func(ctx context.Context, _ string) (string, error) {
			select {
			case <-ctx.Done():
				return "", ctx.Err()
			case <-time.After(6 * time.Second):
				return "b", nil
			}
		})})
		testkit.Add(t, reg, testkit.Provider{Name: "c", Window: 50})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := testkit.Ask(ctx, testkit.Bind(reg))
		require.NoError(t, err)
	})
}

func TestCall_DoesNotRunAfterAuthorizerEndedContext(t *testing.T) {
	t.Parallel()
	var cancel context.CancelFunc
	testkit.Bubble(t, registry.Options{Authorize: func(context.Context, string, string, string) error { cancel(); return nil }}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		var ctx context.Context
		ctx, cancel = context.WithCancel(t.Context())
		ran := false
		_, err := registry.Call(ctx, testkit.Bind(reg), func(ctx context.Context, m testkit.ChatModel) (string, error) {
			ran = true
			return "", nil
		})
		require.ErrorIs(t, err, context.Canceled)
		require.False(t, ran, "ctx.Err() is checked before each attempt")
	})
}

func TestCall_NestedCallErrorIsAFailure(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		outer := registry.NewService[testkit.ChatModel]("agent")
		testkit.Add(t, reg, testkit.Provider{Name: "inner", Instance: testkit.Fails(verdict.Fatal(testkit.ErrDown, 0))})
		o, err := outer.Register(t.Context(), reg, testkit.Provider{Name: "outer", Instance: testkit.Answers(func() (string, error) {
			return testkit.Ask(context.Background(), testkit.Bind(reg))
		})})
		require.NoError(t, err)
		_, err = testkit.Ask(t.Context(), outer.Bind(reg, registry.Query{}))
		require.Error(t, err)
		require.True(t, o.Info().Eligible, "outer: %s", o.Info().Reason)
	})
}

func TestCall_WaitingForFactoryIsNotAnAttempt(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Add(t, reg, testkit.Provider{Name: "hung", Factory: func(ctx context.Context) (testkit.ChatModel, error) { <-ctx.Done(); return nil, ctx.Err() }})
		go func() { _, _ = testkit.Ask(context.Background(), testkit.Bind(reg)) }()
		synctest.Wait()
		before := p.Info().Attempts
		testkit.Pass(time.Minute)
		require.GreaterOrEqual(t, p.Info().Attempts, before)
	})
}

func TestCall_TotalFailureTriesLargeGroupOnce(t *testing.T) {
	t.Parallel()
	for _, strategy := range append(selectors.All(), testkit.NewLast()) {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			for i := range 100 {
				member := testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i), Strategy: strategy, Weight: float64(i % 3)})
				if i%4 == 0 {
					require.NoError(t, member.MarkUnhealthy(testkit.ErrDown))
				}
			}
			testkit.Add(t, reg, testkit.Provider{Name: "next group", Group: 1})
			asked := testkit.CallOrder(t, reg, registry.Query{})
			require.Len(t, asked, 76, "%v", strategy)
			require.Equal(t, "next group", asked[75])
			slices.Sort(asked)
			require.Len(t, slices.Compact(asked), 76)
		})
	}
}
