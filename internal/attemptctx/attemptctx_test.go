package attemptctx_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type contextKey struct{}

var errStop = errors.New("stop")

// told is a function that a follower calls.
type told func()

func (t told) ContextEnded() { t() }

// bubble runs test with the contexts that an attempt is made of.
func bubble(t *testing.T, test func(t *testing.T, caller context.Context, set *attemptctx.Set)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(t, context.WithValue(t.Context(), contextKey{}, "value"), &attemptctx.Set{})
	})
}

func TestContext_HasTheCallersValuesAndTheSoonerDeadline(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
		soon := time.Now().Add(time.Second)
		c := attemptctx.New(caller, soon, set, nil)
		defer c.End()
		require.Equal(t, "value", c.Value(contextKey{}), "before it is armed")
		deadline, ok := c.Deadline()
		require.True(t, ok)
		require.Equal(t, soon, deadline)
		require.NoError(t, c.Err())
		require.Equal(t, "value", c.Value(contextKey{}), "after")
		require.Equal(t, "registry.attempt", fmt.Sprint(c))

		sooner, cancel := context.WithDeadline(caller, soon.Add(-time.Millisecond))
		defer cancel()
		deadline, _ = attemptctx.New(sooner, soon, set, nil).Deadline()
		require.Equal(t, soon.Add(-time.Millisecond), deadline)
		_, ok = attemptctx.New(caller, time.Time{}, set, nil).Deadline()
		require.False(t, ok)
	})
}

func TestContext_EndsAtItsOwnDeadlineWithItsOwnCause(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
		c := attemptctx.New(caller, time.Now().Add(time.Second), set, nil)
		derived, cancel := context.WithCancel(c)
		defer cancel()
		time.Sleep(time.Second)
		synctest.Wait()
		require.ErrorIs(t, derived.Err(), context.DeadlineExceeded)
		require.ErrorIs(t, context.Cause(c), fault.ErrAttemptTimeout)
		require.EqualError(t, context.Cause(c), "attempt timeout")
		require.True(t, c.TimedOut(errStop))
		require.NoError(t, c.Cancelled())
		c.End()
		require.ErrorIs(t, context.Cause(c), fault.ErrAttemptTimeout, "the first cause stays")
	})
}

func TestContext_ThatOnlyASocketSawExpireIsBelievedWhenTheErrorSaysSo(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
		c := attemptctx.New(caller, time.Now().Add(time.Second), set, nil)
		require.False(t, c.TimedOut(os.ErrDeadlineExceeded), "its time has not come")
		require.NoError(t, c.Cancelled(), "it was not asked yet")
		time.Sleep(time.Second)
		require.False(t, c.TimedOut(errStop))
		require.True(t, c.TimedOut(os.ErrDeadlineExceeded))
		c.End()
		require.False(t, attemptctx.New(caller, time.Time{}, set, nil).TimedOut(os.ErrDeadlineExceeded), "it has no deadline")
	})
}

func TestContext_OfTheCallerThatEndsFirstIsNoTimeout(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
		ctx, cancel := context.WithTimeoutCause(caller, time.Second, errStop)
		defer cancel()
		c := attemptctx.New(ctx, time.Now().Add(time.Minute), set, nil)
		<-c.Done()
		require.False(t, c.TimedOut(context.DeadlineExceeded))
		require.Equal(t, errStop, context.Cause(c))
		c.End()
	})
}

func TestEnd_CancelsAlsoWhenAskedOnlyAfterwards(t *testing.T) {
	t.Parallel()
	for name, asksBefore := range map[string]bool{"asked before": true, "asked afterwards": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
				c := attemptctx.New(caller, time.Now().Add(time.Hour), set, nil)
				if asksBefore {
					require.NoError(t, c.Err())
				}
				c.EndAside()
				if asksBefore {
					synctest.Wait()
				}
				require.Equal(t, context.Canceled, c.Err())
				<-c.Done()
				require.Equal(t, context.Canceled, c.Err())
				require.ErrorContains(t, context.Cause(c), "the attempt is over")
				require.NoError(t, c.Cancelled(), "that is no cancellation of the set")
				derived, cancel := context.WithCancel(c)
				defer cancel()
				<-derived.Done()
			})
		})
	}
}

func TestSet_CancelEndsContextsPresentAndToComeWithTheFirstCause(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
		var contexts []*attemptctx.Context
		for range 4 {
			c := attemptctx.New(caller, time.Time{}, set, nil)
			require.NoError(t, c.Err())
			contexts = append(contexts, c)
		}
		derived, cancel := context.WithTimeout(contexts[1], time.Hour)
		defer cancel()
		contexts[0].End() // each place in the list: the last added is its first
		contexts[2].End()
		set.Cancel(errStop)
		set.Cancel(errors.New("another"))
		contexts = append(contexts, attemptctx.New(caller, time.Time{}, set, nil))
		synctest.Wait()
		require.Equal(t, errStop, context.Cause(derived))
		for i, c := range contexts {
			<-c.Done()
			require.Equal(t, context.Canceled, c.Err())
			if i == 0 || i == 2 {
				require.NoError(t, c.Cancelled())
				continue
			}
			require.Equal(t, errStop, c.Cancelled())
			require.Equal(t, errStop, context.Cause(c))
		}
		contexts[3].End()
		require.Equal(t, errStop, contexts[3].Cancelled())
		require.Equal(t, errStop, context.Cause(attemptctx.New(caller, time.Time{}, set, nil)), "asked for the cause alone")
	})
}

func TestSet_MoveOnEndsThePresentContextsThatDoNotStay(t *testing.T) {
	t.Parallel()
	var set attemptctx.Set
	goes, stays, unarmed := attemptctx.New(t.Context(), time.Time{}, &set, nil), attemptctx.New(t.Context(), time.Time{}, &set, nil), attemptctx.New(t.Context(), time.Time{}, &set, nil)
	stays.StayIf(true)
	(*attemptctx.Context)(nil).StayIf(true)
	require.NoError(t, goes.Err())
	require.NoError(t, stays.Err())
	require.Nil(t, unarmed.Value(contextKey{}), "a value of the caller's arms nothing")
	set.MoveOn(errStop)
	require.Equal(t, errStop, goes.Cancelled())
	require.Equal(t, errStop, context.Cause(goes))
	require.NoError(t, stays.Err())
	require.NoError(t, unarmed.Err(), "it was not asked before")
	set.Cancel(errors.New("another"))
	require.Equal(t, errStop, goes.Cancelled())
	require.Error(t, stays.Err())
	for _, c := range []*attemptctx.Context{goes, stays, unarmed} {
		c.End()
	}
}

func TestSet_CancelReachesTheContextsLeftInWhateverOrderOthersEnded(t *testing.T) {
	t.Parallel()
	for first := range 4 {
		for second := range 4 {
			bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
				contexts := make([]*attemptctx.Context, 4)
				for i := range contexts {
					contexts[i] = attemptctx.New(caller, time.Time{}, set, nil)
					require.NoError(t, contexts[i].Err())
				}
				contexts[first].End()
				contexts[second].End()
				set.Cancel(errStop)
				for i, c := range contexts {
					if i != first && i != second {
						require.Equal(t, errStop, c.Cancelled(), "%d, after %d and %d", i, first, second)
					}
					c.End()
				}
			})
		}
	}
}

func TestSet_KeepsNothingOfAContextThatHasEnded(t *testing.T) {
	t.Parallel()
	var set attemptctx.Set
	value := func() weak.Pointer[[64]byte] {
		value := new([64]byte)
		c := attemptctx.New(context.WithValue(context.Background(), contextKey{}, value), time.Time{}, &set, nil)
		require.NoError(t, c.Err())
		later := attemptctx.New(context.Background(), time.Time{}, &set, nil)
		require.NoError(t, later.Err())
		c.End()
		return weak.Make(value)
	}()
	runtime.GC()
	runtime.GC()
	require.Nil(t, value.Value())
	set.Cancel(errStop) // the set is alive until here
}

func TestContext_HasTheCallersValuesAlsoWhenItHasEnded(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
		ended, cancelled := attemptctx.New(caller, time.Time{}, set, nil), attemptctx.New(caller, time.Time{}, set, nil)
		require.NoError(t, errors.Join(ended.Err(), cancelled.Err()))
		ended.End()
		set.Cancel(errStop)
		require.Equal(t, "value", ended.Value(contextKey{}))
		require.Equal(t, "value", cancelled.Value(contextKey{}))
	})
}

func TestSet_CancelComesTooLateForAContextThatHasRunOutOfTime(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
		c := attemptctx.New(caller, time.Now().Add(time.Second), set, nil)
		c.Expire()
		set.Cancel(errStop)
		require.NoError(t, c.Cancelled())
		require.ErrorIs(t, context.Cause(c), fault.ErrAttemptTimeout)

		unbounded := attemptctx.New(caller, time.Time{}, &attemptctx.Set{}, nil)
		unbounded.Expire() // it has nothing to wait for
		require.Equal(t, context.Canceled, unbounded.Err())
	})
}

func TestIdempotencyKey_IsSharedByTheAttemptsOfOneCall(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
		var none context.Context
		require.Empty(t, attemptctx.IdempotencyKey(none))
		require.Empty(t, attemptctx.IdempotencyKey(caller))
		first := attemptctx.New(caller, time.Time{}, set, nil)
		second := attemptctx.New(caller, time.Time{}, set, first)
		key := attemptctx.IdempotencyKey(context.WithValue(second, contextKey{}, "other"))
		require.NotEmpty(t, key)
		require.Equal(t, key, attemptctx.IdempotencyKey(first))
		require.NotEqual(t, key, attemptctx.IdempotencyKey(attemptctx.New(caller, time.Time{}, set, nil)))

		fresh := attemptctx.New(caller, time.Time{}, set, nil)
		var keys sync.Map
		var askers sync.WaitGroup
		for range 8 {
			askers.Go(func() { keys.Store(attemptctx.IdempotencyKey(fresh), true) })
		}
		askers.Wait()
		n := 0
		keys.Range(func(any, any) bool { n++; return true })
		require.Equal(t, 1, n)
	})
}

func TestContext_MayBeAskedFromManyGoroutinesWhileItEnds(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
		var listeners sync.WaitGroup
		for range 50 {
			c := attemptctx.New(caller, time.Now().Add(time.Hour), set, nil)
			for range 4 {
				listeners.Go(func() { <-c.Done() })
			}
			c.End()
			require.Error(t, c.Err())
		}
		listeners.Wait()
	})
}

func TestContext_SurvivesACallersContextWhoseMethodsPanic(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
		c := attemptctx.New(caller, time.Time{}, set, nil)
		child := hostile{c}
		derived, cancel := context.WithCancel(child)
		defer cancel()
		require.NoError(t, derived.Err())
		require.NotPanics(t, func() { set.Cancel(errStop) })
		<-derived.Done()
	})
}

// ownContext is a context of a user that package context does not know.
type ownContext struct {
	context.Context

	done  chan struct{}
	err   func() error
	asked int // for values
}

func (o *ownContext) Done() <-chan struct{} { return o.done }
func (o *ownContext) Err() error            { return o.err() }
func (o *ownContext) Value(key any) any     { o.asked++; return o.Context.Value(key) }

// It may panic or block once its request is over.
func TestContext_AsksACallersContextWhatItIsOnlyOnce(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
		own := &ownContext{Context: caller, done: make(chan struct{}), err: func() error { return nil }}
		c := attemptctx.New(own, time.Time{}, set, nil)
		require.NoError(t, c.Err())
		require.Equal(t, 1, own.asked)
		derived, cancel := context.WithCancel(c)
		defer cancel()
		c.End()
		require.Error(t, derived.Err())
		require.Equal(t, 1, own.asked)
	})
}

func TestContext_EndsWithTheErrorOfACallersOwnContext(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err  func() error
		want error
	}{
		"has an error":              {func() error { return context.DeadlineExceeded }, context.DeadlineExceeded},
		"panics, which is no error": {func() error { panic("in Err") }, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
				own := &ownContext{Context: caller, done: make(chan struct{}), err: func() error { return nil }}
				c := attemptctx.New(own, time.Time{}, set, nil)
				require.NoError(t, c.Err())
				own.err = test.err
				close(own.done)
				<-c.Done()
				require.ErrorIs(t, c.Err(), test.want)
				require.NoError(t, c.Cancelled())
				c.End()
			})
		})
	}
}

// It is not parallel: counting allocations counts those of all goroutines.
func TestIdempotencyKey_IsMadeOnce(t *testing.T) {
	c := attemptctx.New(t.Context(), time.Time{}, &attemptctx.Set{}, nil)
	key := attemptctx.IdempotencyKey(c)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _ = c.Value(contextKey{}) }), 0.0)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _ = attemptctx.IdempotencyKey(c) }), 1.0, "its place in an interface")
	require.Equal(t, key, attemptctx.IdempotencyKey(c))
}

func TestOwnValue_IsWhatTheAttemptAddsToItsCallersValues(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
		asked := &ownContext{Context: caller, done: make(chan struct{}), err: func() error { panic("it would be armed") }}
		c := attemptctx.New(asked, time.Time{}, set, nil)
		value, ok := attemptctx.OwnValue(c, contextKey{})
		require.True(t, ok)
		require.Nil(t, value, "the caller's")
		key := &keys{Context: c}
		require.NotEmpty(t, attemptctx.IdempotencyKey(key))
		value, ok = attemptctx.OwnValue(c, key.asked)
		require.True(t, ok)
		require.Equal(t, attemptctx.IdempotencyKey(key), value)
		_, ok = attemptctx.OwnValue(context.WithValue(c, contextKey{}, "derived"), key.asked)
		require.False(t, ok)
	})
}

// keys notes the key that it was asked for.
type keys struct {
	context.Context

	asked any
}

func (k *keys) Value(key any) any {
	k.asked = key
	return k.Context.Value(key)
}

// hostile is a context of a user whose Err panics.
type hostile struct{ context.Context }

func (h hostile) Err() error {
	if h.Context.Err() != nil {
		panic("in Err")
	}
	return nil
}

func TestFollower_IsToldOfTheCancelledSetAlone(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
		c := attemptctx.New(caller, time.Now().Add(time.Minute), set, nil)
		derived := context.WithValue(c, contextKey{}, "derived")
		var tellings, stopped atomic.Int32
		var follower, gone, late, other attemptctx.Follower
		require.False(t, other.Follow(derived, told(func() { stopped.Add(1) })))
		require.True(t, follower.Follow(c, told(func() {
			require.Equal(t, errStop, c.Cancelled(), "it has ended by then")
			tellings.Add(1)
		})))
		require.True(t, gone.Follow(c, told(func() { stopped.Add(1) })))
		require.False(t, other.Follow(caller, told(func() { stopped.Add(1) })), "no attempt")
		gone.Stop()
		gone.Stop()
		other.Stop()
		require.Zero(t, tellings.Load())
		set.Cancel(errStop)
		require.EqualValues(t, 1, tellings.Load())
		require.True(t, late.Follow(c, told(func() { tellings.Add(1) })))
		require.EqualValues(t, 2, tellings.Load(), "at once")
		require.Zero(t, stopped.Load())
		c.End()
	})
}

func TestFollower_ThatHasStoppedStaysSoWhateverOthersDo(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, caller context.Context, set *attemptctx.Set) {
		c := attemptctx.New(caller, time.Time{}, set, nil)
		var tellings atomic.Int32
		followers := make([]attemptctx.Follower, 3)
		for i := range followers {
			require.True(t, followers[i].Follow(c, told(func() { tellings.Add(1) })))
		}
		for _, i := range []int{1, 2, 1, 0} { // one stops again after its neighbour has gone
			followers[i].Stop()
		}
		set.Cancel(errStop)
		require.Zero(t, tellings.Load())
		c.End()
	})
}
