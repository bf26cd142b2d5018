package registry_test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
)

func TestFactoryRunsOnceAtFirstNeedWhileOthersWait(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var runs atomic.Int64
		a := add(t, reg, provider{Name: "a", Factory: func(context.Context) (chatModel, error) {
			runs.Add(1)
			time.Sleep(10 * time.Second)
			return says("made"), nil
		}})
		pass(time.Minute)
		require.Zero(t, runs.Load(), "not before it is needed")
		require.False(t, a.Info().Made)
		require.True(t, a.Info().Eligible)
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() { asked(t, bind(reg)) })
			callers.Go(func() { got(t, bind(reg)) })
		}
		callers.Wait()
		require.Equal(t, int64(1), runs.Load())
		require.True(t, a.Info().Made)
	})
}

func TestThoseWhoWaitForAFactoryGiveUpWithinTheirOwnContexts(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Factory: func(context.Context) (chatModel, error) {
			time.Sleep(20 * time.Second)
			return says("made"), nil
		}})
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := ask(impatient, bind(reg))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = bind(reg).Get(impatient)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, "made", asked(t, bind(reg)), "their leaving did not end it")
		require.Equal(t, 20*time.Second, time.Since(began))
		requireCounts(t, a, 1, 0, 0, 0)
	})
}

func TestFactoryThatTakesLongerThanAnAttemptIsPassedBy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "slow", AttemptTimeout: time.Second, Factory: func(context.Context) (chatModel, error) {
			time.Sleep(10 * time.Second)
			return says("slow"), nil
		}})
		add(t, reg, provider{Name: "b", Group: 1})
		require.Equal(t, "b", asked(t, bind(reg)))
		require.Equal(t, "b", got(t, bind(reg)))
		pass(10 * time.Second)
		require.Equal(t, "slow", asked(t, bind(reg)))
	})
}

func TestFactoryThatFailsMakesTheProviderIneligibleAndIsTriedAgainLater(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]func() (chatModel, error){
		"error":  func() (chatModel, error) { return nil, errDown },
		"panic":  func() (chatModel, error) { panic(errDown) },
		"nil":    func() (chatModel, error) { var none *nilModel; return none, nil },
		"goexit": func() (chatModel, error) { runtime.Goexit(); return nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				var runs int
				works := false
				a := add(t, reg, provider{Name: "a", Factory: func(context.Context) (chatModel, error) {
					runs++
					if works {
						return says("made"), nil
					}
					return failure()
				}})
				events := reg.Subscribe(0)
				_, err := ask(t.Context(), bind(reg))
				requireOneLine(t, err)
				require.ErrorIs(t, err, registry.ErrUnavailable)
				require.ErrorIs(t, err, registry.ErrNotReady)
				if name == "error" || name == "panic" {
					require.ErrorIs(t, err, errDown)
				}
				var unavailable *registry.UnavailableError
				require.ErrorAs(t, err, &unavailable)
				require.Positive(t, unavailable.RetryIn)
				require.Equal(t, "not_ready", unavailable.Candidates[0].Code)
				for range 50 {
					_, err = ask(t.Context(), bind(reg))
					require.ErrorIs(t, err, registry.ErrNotReady)
				}
				require.Equal(t, 1, runs, "not before its delay is over")
				require.Zero(t, a.Info().Attempts, "the breaker saw nothing")

				pass(2 * time.Second)
				_, err = ask(t.Context(), bind(reg))
				require.Error(t, err)
				require.Equal(t, 2, runs)
				works = true
				pass(time.Minute)
				require.Equal(t, 2, runs, "only at need")
				require.Equal(t, "made", asked(t, bind(reg)))
				require.Equal(t, []event.Kind{event.NotReady, event.NotReady, event.Ready}, kinds(t, events))
			})
		})
	}
}

func TestDelayOfAFailingFactoryGrowsToAMinute(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a", Factory: func(context.Context) (chatModel, error) { return nil, errDown }})
		var last time.Duration
		for range 12 {
			_, err := ask(t.Context(), bind(reg))
			var unavailable *registry.UnavailableError
			require.ErrorAs(t, err, &unavailable)
			last = unavailable.RetryIn
			require.LessOrEqual(t, last, 90*time.Second)
			pass(last)
			require.True(t, a.Info().Eligible)
		}
		require.Greater(t, last, 20*time.Second)
	})
}

func TestFactoryOfARemovedProviderIsCancelledAndItsProductClosed(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		product := &closer{}
		var cause error
		a := add(t, reg, provider{Name: "a", Factory: func(ctx context.Context) (chatModel, error) {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return product, nil // late, and all the same
		}})
		add(t, reg, provider{Name: "b"})
		var caller sync.WaitGroup
		caller.Go(func() { require.Equal(t, "b", asked(t, bind(reg)), "who waited moves on") })
		synctest.Wait()
		drain, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, a.Unregister(drain))
		caller.Wait()
		require.ErrorIs(t, cause, registry.ErrClosed)
		synctest.Wait()
		require.Equal(t, 1, product.closed)
	})
}

func TestCloseEndsAFactoryThatRuns(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", AttemptTimeout: time.Second, Factory: func(ctx context.Context) (chatModel, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		_, err := ask(t.Context(), bind(reg))
		require.ErrorIs(t, err, registry.ErrUnavailable)
	})
}

func TestInstancesThatFactoriesMadeAreClosedAfterTheirLastCall(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		errClosing := errors.New("closing failed")
		product, given := &closer{err: errClosing}, &closer{}
		a := add(t, reg, provider{Name: "a", Factory: func(context.Context) (chatModel, error) { return product, nil }})
		b := add(t, reg, provider{Name: "b", Instance: given})
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		var waiting sync.WaitGroup
		waiting.Go(func() { require.ErrorIs(t, a.Unregister(t.Context()), errClosing) })
		synctest.Wait()
		require.Zero(t, product.closed, "not while a call is in flight")
		lease.Done(nil)
		waiting.Wait()
		require.Equal(t, 1, product.closed)
		require.NoError(t, b.Unregister(t.Context()))
		require.Zero(t, given.closed, "what was passed in remains the caller's")
	})
}

func TestThoseWhoWaitForAFactoryGetWhatItMade(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	for i := range 300 { // on real goroutines: the end of the factory races with the waiters
		a := add(t, reg, provider{Name: strconv.Itoa(i), Factory: func(context.Context) (chatModel, error) { return says("made"), nil }})
		var waiting sync.WaitGroup
		for range 8 {
			waiting.Go(func() {
				if answer, err := ask(t.Context(), bind(reg)); err != nil || answer != "made" {
					t.Error(answer, err)
				}
			})
		}
		waiting.Wait()
		require.NoError(t, a.Unregister(t.Context()))
	}
	require.NoError(t, reg.Close(t.Context()))
}

// closer is a model that counts how often it was closed.
type closer struct {
	closed int
	err    error
	do     func()
}

func (c *closer) Chat(context.Context, string) (string, error) { return "closer", nil }

func (c *closer) Close() error {
	c.closed++
	if c.do != nil {
		c.do()
	}
	return c.err
}
