package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// Variants: reported, moved on from, forgotten; the attempt's own time, the caller's; what still counts.
func TestLease_EndOfItsTimeBlamesNoProviderOnceTheAnswerHasBegun(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end    func(t *testing.T, l *registry.Lease[testkit.ChatModel])
		class  verdict.Class
		blamed bool
	}{
		"reported": {func(t *testing.T, l *registry.Lease[testkit.ChatModel]) {
			t.Helper()
			<-l.Context().Done()
			require.Equal(t, verdict.ClassAttemptTimeout, l.Done(l.Context().Err()))
		}, verdict.ClassAttemptTimeout, false},
		"reported late": {func(t *testing.T, l *registry.Lease[testkit.ChatModel]) {
			t.Helper()
			testkit.Pass(10*time.Second + time.Second/2)
			l.Done(context.Cause(l.Context()))
		}, verdict.ClassAttemptTimeout, false},
		"moved on from": {func(t *testing.T, l *registry.Lease[testkit.ChatModel]) {
			t.Helper()
			<-l.Context().Done()
			next, err := l.MoveOn(l.Context().Err())
			require.Nil(t, next)
			require.Error(t, err)
		}, verdict.ClassAttemptTimeout, false},
		"forgotten": {func(t *testing.T, _ *registry.Lease[testkit.ChatModel]) {
			t.Helper()
			testkit.Pass(time.Minute)
		}, verdict.ClassForgotten, false},
		"timeout of the provider's own client": {func(t *testing.T, l *registry.Lease[testkit.ChatModel]) {
			t.Helper()
			l.Done(context.DeadlineExceeded)
		}, verdict.ClassAttemptTimeout, true},
		"stalled": {func(t *testing.T, l *registry.Lease[testkit.ChatModel]) {
			t.Helper()
			l.Done(verdict.As(testkit.ErrDown, verdict.Verdict{Class: verdict.ClassStalled}))
		}, verdict.ClassStalled, true},
	} {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: 10 * time.Second})
			for range 5 {
				l, err := testkit.Bind(reg).Acquire(t.Context())
				require.NoError(t, err, name)
				l.Steps().Answered()
				c.end(t, l)
			}
			if c.blamed {
				testkit.RequireCounts(t, a, 0, 5, 0, 0)
				require.Equal(t, status.BreakerOpen, a.Breaker().State, name)
				require.Equal(t, c.class, a.Info().LastError.Class, name)
				return
			}
			testkit.RequireCounts(t, a, 0, 0, 5, 0)
			require.Equal(t, status.BreakerClosed, a.Breaker().State, name)
			require.Zero(t, a.Info().LastError, name)
		})
	}
}

func TestLease_EndOfItsTimeCountsBeforeTheAnswerHasBegun(t *testing.T) {
	t.Parallel()
	for _, forgotten := range []bool{false, true} {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: 10 * time.Second})
			for range 5 {
				l, err := testkit.Bind(reg).Acquire(t.Context())
				require.NoError(t, err)
				testkit.Pass(10 * time.Second)
				if forgotten {
					testkit.Pass(time.Minute)
				}
				l.Done(l.Context().Err())
				l.Steps().Answered()
			}
			testkit.RequireCounts(t, a, 0, 5, 0, 0)
			require.Equal(t, status.BreakerOpen, a.Breaker().State)
		})
	}
}

func TestLease_PatienceOfItsHolderIsItsTimeoutForTheBreaker(t *testing.T) {
	t.Parallel()
	for patience, failures := range map[time.Duration]int{time.Second: 1, 0: 0, time.Minute: 0} {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Hour})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			l, err := testkit.Bind(reg).Acquire(ctx)
			require.NoError(t, err)
			l.Steps().Patience(patience)
			testkit.Pass(10 * time.Second)
			l.Done(ctx.Err())
			testkit.RequireCounts(t, a, 0, failures, 1-failures, 0)
		})
	}
}

// A trial whose answer has begun, and then takes all of its time, neither closes the breaker nor opens it again.
func TestLease_LongAnswerOfATrialMovesNoBreaker(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.AddHalfOpen(t, reg, testkit.Provider{Name: "a", AttemptTimeout: 10 * time.Second})
		l, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		l.Steps().Answered()
		testkit.Pass(time.Minute)
		require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
		require.Zero(t, a.Breaker().TrialsInFlight)
	})
}
