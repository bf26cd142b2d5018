package comeback_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/comeback"
	"github.com/capreg/registry/internal/limit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	wait = comeback.Wait[string, *limit.Limits]
	back = comeback.Back[string]
)

// waitFor waits for what first returns, and returns how long that took.
func waitFor(w *wait, by *attemptctx.Caller, first func() back, changed <-chan struct{}) (ok bool, took time.Duration) {
	began := time.Now()
	ok = w.ForFirst(by, func() time.Duration { return time.Since(began) },
		func() (back, <-chan struct{}) { return first(), changed })
	return ok, time.Since(began)
}

// returnsAt returns what comes back at that time.
func returnsAt(at time.Time) func() back {
	return func() back { return back{Key: "k", Known: true, Now: !time.Now().Before(at), Until: at} }
}

func nothing() back { return back{} }

// used returns limits of one attempt a second, which the caller has used up.
func used(t *testing.T, perSecond float64) *limit.Limits {
	t.Helper()
	policy, v := limit.Policy{Rate: perSecond, Burst: 1}.Checked()
	require.Nil(t, v)
	l := limit.New(policy, nil)
	_, retryIn := l.Take("caller")
	require.Zero(t, retryIn)
	return l
}

func same(l *limit.Limits) *limit.Limits { return l }

// bubble runs a test on fake time with a caller that has an hour.
func bubble(t *testing.T, test func(t *testing.T, by *attemptctx.Caller, cancel func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		by := attemptctx.CallerOf(ctx)
		test(t, &by, cancel)
	})
}

func TestAwait_EndsByWakeTimeOrContext(t *testing.T) {
	bubble(t, func(t *testing.T, by *attemptctx.Caller, cancel func()) {
		closed := make(chan struct{})
		close(closed)
		require.Equal(t, comeback.Woken, comeback.Await(by.Ctx, time.Minute, closed))
		require.Equal(t, comeback.TimedOut, comeback.Await(by.Ctx, time.Minute, nil))
		cancel()
		require.Equal(t, comeback.Cancelled, comeback.Await(by.Ctx, time.Minute, nil))
	})
}

func TestPause_GrowsUpToASecond(t *testing.T) {
	require.Zero(t, comeback.Pause(0))
	require.Equal(t, 2*time.Millisecond, comeback.Pause(1))
	require.Equal(t, 4*time.Millisecond, comeback.Pause(2))
	require.Equal(t, time.Second, comeback.Pause(1000))
}

func TestForFirst_EndsWhenTheFirstIsBack(t *testing.T) {
	bubble(t, func(t *testing.T, by *attemptctx.Caller, _ func()) {
		var turns limit.Turns[string]
		w := comeback.New[string, *limit.Limits](turns.Turn())
		ok, took := waitFor(w, by, returnsAt(time.Now().Add(time.Minute)), nil)
		require.True(t, ok)
		require.Equal(t, time.Minute, took)
	})
}

func TestForFirst_FailsAtOnceWhereNothingComesBackInTime(t *testing.T) {
	bubble(t, func(t *testing.T, by *attemptctx.Caller, cancel func()) {
		var turns limit.Turns[string]
		w := comeback.New[string, *limit.Limits](turns.Turn())
		for _, first := range []func() back{nothing, returnsAt(by.Deadline)} {
			ok, took := waitFor(w, by, first, nil)
			require.False(t, ok)
			require.Zero(t, took)
		}
		time.AfterFunc(time.Minute, cancel)
		ok, took := waitFor(w, by, returnsAt(by.Deadline.Add(-time.Second)), nil)
		require.False(t, ok, "its caller has left")
		require.Equal(t, time.Minute, took)
	})
}

func TestForFirst_LooksAgainWhenSomethingHasChanged(t *testing.T) {
	bubble(t, func(t *testing.T, by *attemptctx.Caller, _ func()) {
		var turns limit.Turns[string]
		w := comeback.New[string, *limit.Limits](turns.Turn())
		changed := make(chan struct{})
		early := time.Now().Add(time.Second)
		time.AfterFunc(time.Second, func() { close(changed) })
		ok, took := waitFor(w, by, func() back {
			return back{Key: "k", Known: true, Now: !time.Now().Before(early), Until: early.Add(time.Minute)}
		}, changed)
		require.True(t, ok)
		require.Equal(t, time.Second, took)
	})
}

func TestForFirst_ThoseThatWaitForTheSameGoOneAfterTheOther(t *testing.T) {
	bubble(t, func(t *testing.T, by *attemptctx.Caller, _ func()) {
		var turns limit.Turns[string]
		at := time.Now().Add(10 * time.Second)
		ended := make(chan time.Duration, 2)
		for range 2 {
			w := comeback.New[string, *limit.Limits](turns.Turn())
			go func() {
				_, took := waitFor(w, by, returnsAt(at), nil)
				ended <- took
			}()
		}
		require.Equal(t, 10*time.Second, <-ended)
		require.Equal(t, 10*time.Second+500*time.Millisecond, <-ended, "within a tenth of their wait")
	})
}

func TestForFirst_ACallWithLittleTimeDoesNotWaitForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+400*time.Millisecond)
		defer cancel()
		by := attemptctx.CallerOf(ctx)
		var turns limit.Turns[string]
		before := comeback.New[string, *limit.Limits](turns.Turn())
		w := comeback.New[string, *limit.Limits](turns.Turn())
		at := time.Now().Add(10 * time.Second)
		go func() { _, _ = waitFor(before, &by, returnsAt(at), nil) }()
		ok, took := waitFor(w, &by, returnsAt(at), nil)
		require.True(t, ok)
		require.Equal(t, 10*time.Second, took)
		synctest.Wait()
	})
}

func TestForFirst_ACallThatHasTwiceTheDelayWaitsForItsTurn(t *testing.T) {
	for _, test := range []struct{ left, took time.Duration }{
		{time.Second, 500 * time.Millisecond},
		{time.Second - 2, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+test.left)
			defer cancel()
			by := attemptctx.CallerOf(ctx)
			var turns limit.Turns[string]
			before := comeback.New[string, *limit.Limits](turns.Turn())
			w := comeback.New[string, *limit.Limits](turns.Turn())
			at := time.Now().Add(10 * time.Second)
			go func() { _, _ = waitFor(before, &by, returnsAt(at), nil) }()
			ok, took := waitFor(w, &by, returnsAt(at), nil)
			require.True(t, ok)
			require.Equal(t, 10*time.Second+test.took, took)
			synctest.Wait()
		})
	}
}

func TestForFirst_WaitsAgainForAProviderThatHasLeftBeforeItsTurn(t *testing.T) {
	bubble(t, func(t *testing.T, by *attemptctx.Caller, _ func()) {
		var turns limit.Turns[string]
		before := comeback.New[string, *limit.Limits](turns.Turn())
		w := comeback.New[string, *limit.Limits](turns.Turn())
		back, again := time.Now().Add(10*time.Second), time.Now().Add(20*time.Second)
		first := func() comeback.Back[string] {
			now := time.Now()
			if now.Before(back.Add(100 * time.Millisecond)) {
				return returnsAt(back)()
			}
			return returnsAt(again)()
		}
		go func() { _, _ = waitFor(before, by, first, nil) }()
		ok, took := waitFor(w, by, first, nil)
		require.True(t, ok)
		require.Equal(t, 20*time.Second, took)
		synctest.Wait()
	})
}

func TestForFirst_ACallWithoutADeadlineWaitsHoweverLongItTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		by := attemptctx.CallerOf(t.Context())
		var turns limit.Turns[string]
		w := comeback.New[string, *limit.Limits](turns.Turn())
		ok, took := waitFor(w, &by, returnsAt(time.Now().Add(24*time.Hour)), nil)
		require.True(t, ok)
		require.Equal(t, 24*time.Hour, took)
	})
}

func TestForFirst_EndsWhenTheReservedAttemptIsDue(t *testing.T) {
	bubble(t, func(t *testing.T, by *attemptctx.Caller, _ func()) {
		var turns limit.Turns[string]
		w := comeback.New[string, *limit.Limits](turns.Turn())
		slow, fast, unwanted := used(t, 0.1), used(t, 1), used(t, 100)
		for _, l := range []*limit.Limits{slow, unwanted, fast, used(t, 0.1), used(t, 0.5)} {
			w.NoteThrottled(l)
		}
		w.Reserve(by, "caller", func(l *limit.Limits) *limit.Limits {
			if l == unwanted {
				return nil
			}
			return l
		})
		require.True(t, w.Holds(fast), "it comes first")
		ok, took := waitFor(w, by, nothing, nil)
		require.True(t, ok)
		require.Equal(t, time.Second, took)
		_, retryIn := w.Take(fast, "caller")
		require.Zero(t, retryIn, "the attempt was kept for it")
		require.False(t, w.Holds(fast))
	})
}

func TestForFirst_TheReservedAttemptGoesBeforeAProviderThatIsBackLater(t *testing.T) {
	for _, later := range []time.Duration{10 * time.Second, time.Minute, 2 * time.Hour} {
		bubble(t, func(t *testing.T, by *attemptctx.Caller, _ func()) {
			var turns limit.Turns[string]
			w := comeback.New[string, *limit.Limits](turns.Turn())
			w.NoteThrottled(used(t, 0.1))
			w.Reserve(by, "caller", same)
			ok, took := waitFor(w, by, returnsAt(time.Now().Add(later)), nil)
			require.True(t, ok)
			require.Equal(t, 10*time.Second, took, "%v", later)
		})
	}
}

func TestForFirst_AProviderThatIsBackBeforeTheReservedAttemptGoesFirst(t *testing.T) {
	bubble(t, func(t *testing.T, by *attemptctx.Caller, _ func()) {
		var turns limit.Turns[string]
		w := comeback.New[string, *limit.Limits](turns.Turn())
		w.NoteThrottled(used(t, 0.1))
		w.Reserve(by, "caller", same)
		ok, took := waitFor(w, by, returnsAt(time.Now().Add(time.Second)), nil)
		require.True(t, ok)
		require.Equal(t, time.Second, took)
	})
}

func TestReserve_NothingThatComesAfterTheDeadlineOrWasForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, by *attemptctx.Caller, _ func()) {
		var turns limit.Turns[string]
		w := comeback.New[string, *limit.Limits](turns.Turn())
		l := used(t, 1.0/7200)
		w.NoteThrottled(l)
		w.Reserve(by, "caller", same)
		require.False(t, w.Holds(l))
		unbounded := attemptctx.CallerOf(context.Background())
		w.ForgetThrottled()
		w.Reserve(&unbounded, "caller", same)
		require.False(t, w.Holds(l))
		w.NoteThrottled(l)
		w.Reserve(&unbounded, "caller", same)
		require.True(t, w.Holds(l))
		w.End()
		require.False(t, w.Holds(l))
	})
}

func TestWait_OfACallThatNeverWaitedIsNil(t *testing.T) {
	bubble(t, func(t *testing.T, _ *attemptctx.Caller, _ func()) {
		var w *wait
		l := used(t, 1)
		w.End()
		require.False(t, w.Holds(l))
		_, retryIn := w.Take(l, "caller")
		require.Equal(t, time.Second, retryIn)
	})
}
