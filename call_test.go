package registry_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

func TestCallMovesOnToTheSecondProviderAndLeavesTheThirdAlone(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		b := add(t, reg, provider{Name: "b"})
		c := add(t, reg, provider{Name: "c"})
		require.Equal(t, "b", asked(t, bind(reg)))
		requireCounts(t, a, 0, 1, 0, 0)
		requireCounts(t, b, 1, 0, 0, 0)
		requireCounts(t, c, 0, 0, 0, 0)
	})
}

func TestCallThatFailsEverywhereTriesEachOnceAndNamesThemAll(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		errOther := errors.New("multi\nline")
		slow := chatFunc(func(context.Context, string) (string, error) {
			time.Sleep(2 * time.Second)
			return "", errOther
		})
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		b := add(t, reg, provider{Name: "b", Instance: slow, Group: 1})
		_, err := ask(t.Context(), bind(reg))
		requireOneLine(t, err)
		require.ErrorIs(t, err, errDown)
		require.ErrorIs(t, err, errOther)
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, []registry.Attempt{
			{Provider: "a", Why: "first", Class: verdict.ClassUnknown, Err: errDown},
			{Provider: "b", Why: "failover", Class: verdict.ClassUnknown, Err: errOther, Duration: 2 * time.Second},
		}, failed.Attempts)
		require.Empty(t, failed.Skipped)
		require.Contains(t, err.Error(), `a: unknown after 0s: down; b: unknown after 2s: multi line`)
		requireCounts(t, a, 0, 1, 0, 0)
		requireCounts(t, b, 0, 1, 0, 0)
		require.Zero(t, b.Info().MeanLatency, "of answers")
	})
}

func TestFailedCallNamesTheProvidersItSkipped(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		b := add(t, reg, provider{Name: "b"})
		require.NoError(t, b.ForceOpen(time.Hour, "maintenance"))
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, errDown)
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.Len(t, failed.Skipped, 1)
		require.Equal(t, "b", failed.Skipped[0].Provider)
		require.Equal(t, time.Hour, failed.Skipped[0].RetryIn)
		require.Zero(t, failed.RetryIn, "a can be asked again now")
	})
}

func TestProviderThatIsParkedBesideOthersDoesNotSpeakForThem(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		errKey := verdict.Fatal(errors.New("bad key"), 0)
		a := add(t, reg, provider{Name: "a", Instance: fails(errKey)})
		b := add(t, reg, provider{Name: "b", Instance: fails(errDown)})
		_, err := ask(t.Context(), bind(reg)) // parks a
		require.NotErrorIs(t, err, registry.ErrCredentials)
		_, err = ask(t.Context(), bind(reg))
		require.NotErrorIs(t, err, registry.ErrCredentials)
		require.ErrorIs(t, err, registry.ErrCoolingDown)
		require.ErrorIs(t, err, errDown)
		require.NoError(t, b.ForceOpen(time.Hour, "test"))
		_, err = ask(t.Context(), bind(reg))
		require.NotErrorIs(t, err, registry.ErrCredentials)
		require.ErrorIs(t, err, errKey, "its cause is still there")
		require.NoError(t, b.Unregister(t.Context()))
		_, err = ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, registry.ErrCredentials)
		require.False(t, a.Info().CooldownUntil.IsZero())
	})
}

func TestCallThatWaitsNeverMissesTheMomentAtWhichACooldownEnds(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var asked atomic.Int32
		add(t, reg, provider{Name: "a", Breaker: registry.BreakerPolicy{FailureThreshold: 1 << 20}, Instance: answers(func() (string, error) {
			if asked.Add(1)%4 != 0 {
				return "", verdict.RateLimited(errDown, time.Millisecond)
			}
			return "a", nil
		})})
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				for range 5 {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					_, err := ask(ctx, bind(reg), registry.WaitForCooldown())
					cancel()
					var failed *registry.CallError
					if err != nil && errors.As(err, &failed) && len(failed.Attempts) < 16 {
						t.Errorf("gave up after %d attempts: %v", len(failed.Attempts), err)
					}
				}
			})
		}
		all.Wait()
	})
}

func TestCallerThatCancelsBlamesNobodyAndEndsTheCall(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: hangs(), Breaker: registry.BreakerPolicy{FailureThreshold: 1}})
		b := add(t, reg, provider{Name: "b"})
		errBored := errors.New("bored")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errBored) })
		_, err := ask(ctx, bind(reg))
		requireOneLine(t, err)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, errBored)
		requireCounts(t, a, 0, 0, 1, 0)
		requireCounts(t, b, 0, 0, 0, 0)
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
	})
}

func TestCallWithAContextThatHasEndedRunsNothing(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := ask(ctx, bind(reg))
		require.ErrorIs(t, err, context.Canceled)
		_, err = bind(reg).Acquire(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, a.Info().Attempts)
	})
}

func TestAttemptTimeoutIsTheProvidersFailureAndTheNextOneAnswers(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var cause error
		stuck := chatFunc(func(ctx context.Context, _ string) (string, error) {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return "", ctx.Err()
		})
		a := add(t, reg, provider{Name: "a", Instance: stuck, AttemptTimeout: 3 * time.Second})
		add(t, reg, provider{Name: "b"})
		began := time.Now()
		require.Equal(t, "b", asked(t, bind(reg)))
		require.Equal(t, 3*time.Second, time.Since(began))
		require.ErrorIs(t, cause, registry.ErrAttemptTimeout)
		requireCounts(t, a, 0, 1, 0, 0)
	})
}

func TestAttemptTimeoutIsThirtySecondsByDefault(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: hangs()})
		began := time.Now()
		_, err := ask(t.Context(), bind(reg))
		require.Equal(t, 30*time.Second, time.Since(began))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, verdict.ClassAttemptTimeout, failed.Attempts[0].Class)
	})
}

func TestAttemptGetsHalfOfWhatRemainsWhileSomebodyElseCouldBeAsked(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, name := range []string{"a", "b", "c"} {
			add(t, reg, provider{Name: name, Instance: hangs()})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		began := time.Now()
		_, err := ask(ctx, bind(reg))
		require.Equal(t, 8*time.Second, time.Since(began), "the caller's deadline is never exceeded")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, []registry.Attempt{
			{Provider: "a", Why: "first", Class: verdict.ClassAttemptTimeout, Duration: 4 * time.Second, Err: context.DeadlineExceeded},
			{Provider: "b", Why: "failover", Class: verdict.ClassAttemptTimeout, Duration: 2 * time.Second, Err: context.DeadlineExceeded},
			{Provider: "c", Why: "failover", Class: verdict.ClassCallerDeadline, Duration: 2 * time.Second, Err: context.DeadlineExceeded},
		}, failed.Attempts)
	})
}

func TestCallersDeadlineCountsOnlyWhenTheAttemptHadHalfOfItsTime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		deadline          time.Duration
		failures, ignored int
	}{{4 * time.Second, 0, 1}, {5 * time.Second, 1, 0}} {
		bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			a := add(t, reg, provider{Name: "a", Instance: hangs(), AttemptTimeout: 10 * time.Second})
			ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
			defer cancel()
			_, err := ask(ctx, bind(reg))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			requireCounts(t, a, 0, c.failures, c.ignored, 0)
			require.Equal(t, c.failures, a.Breaker().ConsecutiveFailures)
		})
	}
}

func TestAnswerAfterTheTimeoutIsReturnedAllTheSame(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		deaf := answers(func() (string, error) { time.Sleep(time.Minute); return "late", nil })
		a := add(t, reg, provider{Name: "a", Instance: deaf, AttemptTimeout: time.Second})
		require.Equal(t, "late", asked(t, bind(reg)))
		requireCounts(t, a, 1, 0, 0, 0)
	})
}

func TestCallersMistakeIsReturnedAtOnceAndBlamesNobody(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		mistake := verdict.Permanent(errors.New("no prompt"))
		a := add(t, reg, provider{Name: "a", Instance: fails(mistake), Breaker: registry.BreakerPolicy{FailureThreshold: 1}})
		b := add(t, reg, provider{Name: "b"})
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, mistake)
		requireCounts(t, a, 1, 0, 0, 0)
		requireCounts(t, b, 0, 0, 0, 0)
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
	})
}

func TestCallersMistakeEndsARowOfFailures(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var next error
		a := add(t, reg, provider{Name: "a", Instance: answers(func() (string, error) { return "", next })})
		for range 20 {
			next = errDown
			for range 4 {
				_, err := ask(t.Context(), bind(reg))
				require.ErrorIs(t, err, errDown)
			}
			next = verdict.Permanent(errors.New("mistake")) // an answer in time
			_, err := ask(t.Context(), bind(reg))
			require.ErrorIs(t, err, next)
		}
		require.Equal(t, registry.BreakerClosed, a.Breaker().State)
	})
}

func TestRequestThatIsTooLongGoesOnlyToLargerWindows(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		tooLong := verdict.As(errors.New("too long"), verdict.Verdict{Class: verdict.ClassTooLong})
		a := add(t, reg, provider{Name: "a", Instance: fails(tooLong), Window: 8000})
		same := add(t, reg, provider{Name: "same", Window: 8000})
		unknown := add(t, reg, provider{Name: "unknown"})
		larger := add(t, reg, provider{Name: "larger", Window: 32000})
		require.Equal(t, "larger", asked(t, bind(reg)))
		requireCounts(t, a, 1, 0, 0, 0)
		requireCounts(t, same, 0, 0, 0, 0)
		requireCounts(t, unknown, 0, 0, 0, 0)
		requireCounts(t, larger, 1, 0, 0, 0)
	})
}

func TestRefusedContentIsTheAnswerUnlessTheQueryAllowsToAskOn(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		refused := verdict.As(errors.New("refused"), verdict.Verdict{Class: verdict.ClassRefused})
		add(t, reg, provider{Name: "a", Instance: fails(refused)})
		add(t, reg, provider{Name: "b"})
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, refused)
		require.Equal(t, "b", asked(t, chat.Bind(reg, registry.Query{TryRefused: true})))
	})
}

func TestOnceOnlyCallNeverRunsASecondTime(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		b := add(t, reg, provider{Name: "b"})
		_, err := ask(t.Context(), bind(reg), registry.OnceOnly())
		require.ErrorIs(t, err, errDown)
		require.Zero(t, b.Info().Attempts)
	})
}

func TestErrorOfAOnceOnlyCallSaysWhyNobodyElseWasAsked(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		add(t, reg, provider{Name: "b"})
		_, err := ask(t.Context(), bind(reg), registry.OnceOnly())
		require.ErrorContains(t, err, "not tried elsewhere: once only")
	})
}

func TestOnceOnlyCallMovesOnBeforeItsFunctionWasEntered(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		open := add(t, reg, provider{Name: "open"})
		ill := add(t, reg, provider{Name: "ill"})
		add(t, reg, provider{Name: "unmade", Factory: func(context.Context) (chatModel, error) { return nil, errDown }})
		add(t, reg, provider{Name: "b"})
		require.NoError(t, open.ForceOpen(time.Hour, "test"))
		require.NoError(t, ill.MarkUnhealthy(errDown))
		require.Equal(t, "b", asked(t, bind(reg), registry.OnceOnly()))
	})
}

func TestOnceOnlyCallMovesOnWhenNothingWasSent(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(verdict.NotSent(errDown))})
		add(t, reg, provider{Name: "b"})
		require.Equal(t, "b", asked(t, bind(reg), registry.OnceOnly()))
		requireCounts(t, a, 0, 1, 0, 0)
	})
}

func TestPanicReachesTheCallerAfterItWasRecorded(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: answers(func() (string, error) { panic("boom") })})
		add(t, reg, provider{Name: "b"})
		require.PanicsWithValue(t, "boom", func() { _, _ = ask(t.Context(), bind(reg)) })
		requireCounts(t, a, 0, 1, 0, 0)
		require.Equal(t, 1, a.Breaker().ConsecutiveFailures)
	})
}

func TestPanicIsAnErrorAndMovesOnWhenTheOptionsSaySo(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{PanicsAsErrors: true}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: answers(func() (string, error) { panic(errDown) })})
		b := add(t, reg, provider{Name: "b"})
		require.Equal(t, "b", asked(t, bind(reg)))
		requireCounts(t, a, 0, 1, 0, 0)
		require.NoError(t, b.Unregister(t.Context()))
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, errDown, "a panic with an error keeps it")
		var panicked *registry.PanicError
		require.ErrorAs(t, err, &panicked)
		require.Contains(t, string(panicked.Stack), "call_test.go")
		_, err = ask(t.Context(), bind(reg), registry.OnceOnly())
		require.ErrorAs(t, err, &panicked)
	})
}

func TestFunctionThatExitsItsGoroutineIsAFailureAndHoldsNothing(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{PanicsAsErrors: true}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: answers(func() (string, error) { runtime.Goexit(); return "", nil })})
		var exited sync.WaitGroup
		exited.Go(func() { _, _ = ask(t.Context(), bind(reg)) })
		exited.Wait()
		requireCounts(t, a, 0, 1, 0, 0)
	})
}

func TestClassifierThatPanicsOrExitsLosesNoOutcome(t *testing.T) {
	t.Parallel()
	exit := false
	classify := func(error) verdict.Verdict {
		if exit {
			runtime.Goexit()
		}
		panic("classifier")
	}
	bubble(t, registry.Options{Classify: classify}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(errDown)})
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, errDown)
		requireCounts(t, a, 0, 1, 0, 0)
		exit = true
		var exited sync.WaitGroup
		exited.Go(func() { _, _ = ask(t.Context(), bind(reg)) })
		exited.Wait()
		requireCounts(t, a, 0, 2, 0, 0)
	})
}

func TestErrorsWhoseOwnMethodsPanicAreFailuresLikeOthers(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var broken *brokenError
		a := add(t, reg, provider{Name: "a", Instance: fails(broken)})
		_, err := ask(t.Context(), bind(reg))
		requireOneLine(t, err)
		requireCounts(t, a, 0, 1, 0, 0)
	})
}

type brokenError struct{ text string }

func (b *brokenError) Error() string { return b.text } // panics on nil

func TestClassifiersAreAskedFromTheProvidersToTheRegistrys(t *testing.T) {
	t.Parallel()
	says := func(class verdict.Class) verdict.Classifier {
		return func(error) verdict.Verdict { return verdict.Verdict{Class: class} }
	}
	bubble(t, registry.Options{Classify: says(verdict.ClassBadRequest)}, func(t *testing.T, reg *registry.Registry) {
		require.NoError(t, chat.Classify(reg, func(err error) verdict.Verdict {
			if errors.Is(err, errDown) {
				return verdict.Verdict{Class: verdict.ClassTransport}
			}
			return verdict.Verdict{} // passes
		}))
		add(t, reg, provider{Name: "a", Instance: fails(errDown), Classify: says(verdict.ClassServerError)})
		add(t, reg, provider{Name: "b", Instance: fails(errDown), Classify: says(verdict.ClassUnknown)}) // passes
		add(t, reg, provider{Name: "c", Instance: fails(errors.New("something else"))})
		add(t, reg, provider{Name: "d"})
		_, err := ask(t.Context(), bind(reg))
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		var classes []verdict.Class
		for _, a := range failed.Attempts {
			classes = append(classes, a.Class)
		}
		require.Equal(t, []verdict.Class{verdict.ClassServerError, verdict.ClassTransport, verdict.ClassBadRequest}, classes)
		require.NoError(t, chat.Classify(reg, nil))
		require.ErrorIs(t, registry.NewService[int]("chat").Classify(reg, nil), registry.ErrConflict)
		require.ErrorIs(t, chat.Classify(nil, nil), registry.ErrInvalid)
	})
}

func TestTimeoutOfTheProvidersOwnClientMovesOn(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: fails(fmt.Errorf("sdk: %w", context.DeadlineExceeded))})
		add(t, reg, provider{Name: "b"})
		require.Equal(t, "b", asked(t, bind(reg)))
		requireCounts(t, a, 0, 1, 0, 0)
	})
}

func TestCallOfNothingIsAnErrorNotAPanic(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a"})
		_, err := registry.Call[chatModel, string](t.Context(), bind(reg), nil)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = ask(t.Context(), nil)
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = ask(t.Context(), &registry.Resolver[chatModel]{})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = ask(t.Context(), chat.Bind(nil, registry.Query{}))
		require.ErrorIs(t, err, registry.ErrInvalid)
		for _, timeout := range []time.Duration{0, -1} {
			_, err = ask(t.Context(), bind(reg), registry.AttemptTimeout(timeout))
			require.ErrorIs(t, err, registry.ErrInvalid)
			require.ErrorContains(t, err, "AttemptTimeout")
		}
	})
}

func TestAttemptTimeoutOfACallReplacesTheProviders(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Instance: hangs()})
		began := time.Now()
		_, err := ask(t.Context(), bind(reg), registry.AttemptTimeout(time.Second))
		require.Error(t, err)
		require.Equal(t, time.Second, time.Since(began))
	})
}

func TestConcurrentCallsOfADeadProviderLoseNoOutcome(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Instance: answers(func() (string, error) { time.Sleep(time.Second); return "", errDown })})
		b := add(t, reg, provider{Name: "b"})
		var callers sync.WaitGroup
		for range 200 {
			callers.Go(func() { _, _ = ask(t.Context(), bind(reg)) })
		}
		synctest.Wait()
		require.Equal(t, uint64(200), a.Info().InFlight)
		callers.Wait()
		requireCounts(t, a, 0, 200, 0, 0)
		requireCounts(t, b, 200, 0, 0, 0)
		require.Equal(t, uint64(1), a.Breaker().Opened)
	})
}
