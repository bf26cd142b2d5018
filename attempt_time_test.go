package registry_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// takes returns a model that answers after the given time. With less than zero it hangs.
func takes(name string, times ...time.Duration) testkit.ChatFunc {
	calls := 0
	return func(ctx context.Context, _ string) (string, error) {
		after := times[min(calls, len(times)-1)]
		calls++
		if after < 0 {
			<-ctx.Done()
			return "", ctx.Err()
		}
		select {
		case <-time.After(after):
			return name, nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// answered counts the calls that are answered before the deadline of each.
func answered(t *testing.T, r *registry.Resolver[testkit.ChatModel], calls int, deadline time.Duration, options ...registry.CallOption) (n int) {
	t.Helper()
	for range calls {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		if _, err := testkit.Ask(ctx, r, options...); err == nil {
			n++
		}
		cancel()
	}
	return n
}

// A second provider, as good as the first, must not take calls away that the first would have answered. The
// variants: how the timeout is given (by the provider, by the option, not at all), how the two are arranged (one
// group, two groups, in turns, by a picking strategy), how near the deadline the answers are, and how many there are.
func TestAttemptTime_ABackupLosesNoCall(t *testing.T) {
	t.Parallel()
	const second = time.Second
	for _, c := range []struct {
		name              string
		timeout           time.Duration
		option            time.Duration
		strategy          selection.Strategy
		groups            bool
		answer, deadline  time.Duration // the default of the deadline is 10 s
		providers, atEach int           // at least so many of 20 are answered
	}{
		{name: "timeout of the provider", timeout: 9 * second, answer: 7 * second, atEach: 20},
		{name: "timeout of the provider, two groups", timeout: 9 * second, groups: true, answer: 7 * second, atEach: 20},
		{name: "timeout longer than the deadline", timeout: time.Hour, answer: 7 * second, atEach: 20},
		{name: "no timeout", timeout: registry.NoTimeout, answer: 7 * second, atEach: 20},
		{name: "timeout of the call", option: 9 * second, answer: 7 * second, atEach: 20},
		{name: "timeout of the call, as long as the default", option: 30 * second, answer: 29 * second, deadline: 31 * second, atEach: 20},
		{name: "timeout of the provider, as long as the default", timeout: 30 * second, answer: 28 * second, deadline: 29 * second, atEach: 20},
		{name: "none given", answer: 7 * second, atEach: 20},
		{name: "none given, two groups", groups: true, answer: 7 * second, atEach: 20},
		{name: "none given, five providers", answer: 7 * second, providers: 5, atEach: 20},
		{name: "none given, in turns", strategy: registry.StrategyRoundRobin, answer: 7 * second, atEach: 20},
		{name: "none given, by latency", strategy: selectors.LatencyAware(), answer: 7 * second, atEach: 20},
		{name: "none given, shortly before the deadline", answer: 9900 * time.Millisecond, atEach: 18},
		{name: "none given, at once", answer: 1, atEach: 20},
		{name: "none given, near the default", answer: 29 * second, deadline: 31 * second, atEach: 18},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				for i := range max(c.providers, 2) {
					p := testkit.Provider{Name: fmt.Sprint("p", i), AttemptTimeout: c.timeout, Strategy: c.strategy, Instance: takes("x", c.answer)}
					if c.groups {
						p.Group = i
					}
					testkit.Add(t, reg, p)
				}
				var options []registry.CallOption
				if c.option > 0 {
					options = append(options, registry.AttemptTimeout(c.option))
				}
				deadline := cmp.Or(c.deadline, 10*time.Second)
				require.GreaterOrEqual(t, answered(t, testkit.Bind(reg), 20, deadline, options...), c.atEach)
				for _, info := range testkit.Infos(reg) {
					require.Equal(t, status.BreakerClosed, info.Breaker.State, info.Name)
					require.Zero(t, info.Failures, info.Name)
				}
			})
		})
	}
}

// An explicit timeout is taken at its word, and its default, given, is explicit too.
func TestAttemptTime_ExplicitTimeoutIsTakenAtItsWord(t *testing.T) {
	t.Parallel()
	limitOf := func(t *testing.T, reg *registry.Registry, options ...registry.CallOption) (limit time.Duration) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		_, err := registry.Call(ctx, testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (int, error) {
			deadline, _ := ctx.Deadline()
			limit = time.Until(deadline)
			return 0, nil
		}, options...)
		require.NoError(t, err)
		return limit
	}
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1, Instance: takes("b", 20*time.Second)})
		require.Equal(t, 30*time.Second, limitOf(t, reg), "three quarters and more, and no more than the default")
		require.Equal(t, 35*time.Second, limitOf(t, reg, registry.AttemptTimeout(35*time.Second)))
		require.Equal(t, 40*time.Second, limitOf(t, reg, registry.AttemptTimeout(time.Minute)))
		for _, set := range []struct{ given, limit time.Duration }{
			{39 * time.Second, 39 * time.Second}, {registry.NoTimeout, 40 * time.Second}, {0, 30 * time.Second}, {time.Second, time.Second},
		} {
			_, err := a.SetAttemptTimeout(set.given)
			require.NoError(t, err)
			require.Equal(t, set.limit, limitOf(t, reg))
		}
		require.Zero(t, b.Info().Failures)
	})
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := takes("a", 40*time.Second)
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: a})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1, Instance: takes("b", 40*time.Second)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		answer, err := testkit.Ask(ctx, testkit.Bind(reg), registry.AttemptTimeout(55*time.Second))
		require.NoError(t, err)
		require.Equal(t, "a", answer)
	})
}

// One that hangs is found out within its breaker's threshold, and costs at most one call. The variants: it has
// never answered, or has before; the backup answers soon, or takes most of the time; the breaker has another
// threshold, or a rate; the timeout is a default, or is longer than the deadline, or the call must not run twice, when
// the calls until then are lost.
func TestAttemptTime_OneThatHangsIsFoundOut(t *testing.T) {
	t.Parallel()
	const second = time.Second
	for _, c := range []struct {
		name     string
		before   time.Duration // of its answers, before it hangs
		backup   time.Duration
		timeout  time.Duration
		breaker  registry.BreakerPolicy
		deadline time.Duration
		options  []registry.CallOption
		answered int // of 20, at least
		within   int // calls
	}{
		{name: "never answered, backup answers at once", backup: 1, answered: 20},
		{name: "never answered, backup answers soon", backup: second, answered: 20},
		{name: "never answered, backup takes long", backup: 7 * second, answered: 19},
		{name: "answered at once, backup answers soon", before: 1, backup: second, answered: 20},
		{name: "answered slowly, backup answers soon", before: 7 * second, backup: second, answered: 20},
		{name: "answered slowly, backup takes long", before: 7 * second, backup: 7 * second, answered: 18},
		{name: "answered soon, backup takes long", before: second, backup: 7 * second, answered: 19},
		{name: "short deadlines", backup: 10 * time.Millisecond, deadline: 300 * time.Millisecond, answered: 20},
		{name: "threshold of two", backup: second, breaker: registry.BreakerPolicy{FailureThreshold: 2}, answered: 20, within: 2},
		{name: "rate", backup: second, breaker: registry.BreakerPolicy{FailureRate: 0.5, MinimumCalls: 5}, answered: 20},
		{name: "explicit timeout longer than the deadline", backup: second, timeout: time.Minute, answered: 15},
		{name: "without timeout", backup: second, timeout: registry.NoTimeout, answered: 15},
		{name: "explicit timeout of the call", backup: second, options: []registry.CallOption{registry.AttemptTimeout(time.Minute)}, answered: 15},
		{name: "once only", backup: second, options: []registry.CallOption{registry.OnceOnly()}, answered: 15},
		{name: "explicit timeout within the deadline", backup: second, timeout: 8 * second, answered: 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				times := []time.Duration{-1}
				if c.before > 0 {
					times = []time.Duration{c.before, c.before, -1}
				}
				if c.before > 0 {
					c.breaker.RecoveryTimeout = time.Hour // its trials may cost calls as well
				}
				b := testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1, Instance: takes("b", c.backup)})
				if c.before > 0 {
					testkit.MustAsk(t, testkit.Bind(reg)) // both are known
				}
				a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: c.timeout, Breaker: c.breaker, Instance: takes("a", times...)})
				for range len(times) - 1 {
					require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)))
				}
				deadline, within := cmp.Or(c.deadline, 10*second), cmp.Or(c.within, 5)
				n := answered(t, testkit.Bind(reg), within-1, deadline, c.options...)
				require.Equal(t, status.BreakerClosed, a.Breaker().State)
				n += answered(t, testkit.Bind(reg), 1, deadline, c.options...)
				require.Equal(t, status.BreakerOpen, a.Breaker().State)
				n += answered(t, testkit.Bind(reg), 20-within, deadline, c.options...)
				require.GreaterOrEqual(t, n, c.answered)
				require.Equal(t, status.BreakerClosed, b.Breaker().State)
				require.Zero(t, b.Info().Failures)
			})
		})
	}
}

// Calls at the same time find a hanging provider out as well, and no outcome is lost.
func TestAttemptTime_ManyAtOnceFindOutOneThatHangs(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Hangs()})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1, Instance: testkit.Takes("b", time.Second)})
		var all sync.WaitGroup
		var n atomic.Int64
		for range 100 {
			all.Go(func() { n.Add(int64(answered(t, testkit.Bind(reg), 2, 10*time.Second))) })
		}
		all.Wait()
		require.EqualValues(t, 200, n.Load())
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
		require.EqualValues(t, 1, a.Breaker().Opened)
		testkit.RequireCounts(t, a, 0, 0, 100, 0)
		testkit.RequireCounts(t, b, 200, 0, 0, 0)
	})
}

// One caller in a hurry does not take a provider away from the others: neither by its deadlines, nor by leaving, nor
// by asking for what takes longer than it waits, while others are answered; alone, with a backup, by calls and leases.
func TestAttemptTime_CallersInAHurrySwitchNothingOff(t *testing.T) {
	t.Parallel()
	for _, providers := range []int{1, 2, 3} {
		for _, timeout := range []time.Duration{0, 20 * time.Second, registry.NoTimeout} {
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				for i := range providers {
					testkit.Add(t, reg, testkit.Provider{Name: fmt.Sprint("p", i), Group: i, AttemptTimeout: timeout, Instance: takes("x", 7*time.Second)})
				}
				r := testkit.Bind(reg)
				testkit.MustAsk(t, r)
				for range 20 {
					require.Zero(t, answered(t, r, 1, 3*time.Second))
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
					lease, err := r.Acquire(ctx)
					require.NoError(t, err)
					_, err = lease.Value.Chat(lease.Context(), "?")
					require.Equal(t, verdict.ClassCallerDeadline, lease.Done(err))
					cancel()
					ctx, cancel = context.WithCancel(t.Context())
					time.AfterFunc(3*time.Second, cancel)
					_, err = testkit.Ask(ctx, r)
					require.ErrorIs(t, err, context.Canceled)
				}
				for _, info := range testkit.Infos(reg) {
					require.Equal(t, status.BreakerClosed, info.Breaker.State)
					require.Zero(t, info.Failures)
				}
				require.Equal(t, 20, answered(t, r, 20, 10*time.Second))
			})
		}
	}
}

// A cut blames no provider that answers again before they are as many as its breaker's threshold, even where only
// the last of them had the time to.
func TestAttemptTime_OneThatIsSlowIsNotBlamed(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		const usual = 7 * time.Second
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: takes("a", usual, 9*time.Second, usual)})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1, Instance: takes("b", usual)})
		require.NoError(t, a.ForceOpen(time.Second, "test"))
		testkit.MustAsk(t, testkit.Bind(reg)) // b
		require.NoError(t, a.Reset())
		require.GreaterOrEqual(t, answered(t, testkit.Bind(reg), 20, 10*time.Second), 19, "one took too long")
		for _, each := range []*registry.Registration{a, b} {
			require.Zero(t, each.Info().Failures)
			require.Zero(t, each.Breaker().Opened-each.Breaker().ForcedOpen)
		}
		require.Greater(t, a.Info().Successes, uint64(10), "it is asked first again")
	})
}

// A trial has the time that the provider takes, so that a breaker that opened for cuts can close again.
func TestAttemptTime_ATrialIsNotCutBelowItsNeed(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: takes("a", 7*time.Second, -1, -1, -1, -1, -1, 7*time.Second), Breaker: registry.BreakerPolicy{
			RecoveryTimeout: time.Minute, SuccessThreshold: 1,
		}})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1, Instance: takes("b", 7*time.Second)})
		answered(t, testkit.Bind(reg), 6, 10*time.Second)
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
		require.Equal(t, "5 calls in a row without an answer", a.Breaker().Reason)
		testkit.Pass(time.Minute + 1)
		require.Equal(t, 1, answered(t, testkit.Bind(reg), 1, 10*time.Second))
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		require.Equal(t, uint64(2), a.Info().Successes)
	})
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.AddHalfOpen(t, reg, testkit.Provider{Name: "a", Instance: takes("a", -1)})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1, Instance: takes("b", time.Second)})
		require.Equal(t, 1, answered(t, testkit.Bind(reg), 1, 10*time.Second))
		require.Equal(t, status.BreakerOpen, a.Breaker().State, "a trial that is not answered has failed")
	})
}

// statusError is an error as the client of an HTTP API returns it.
type statusError struct {
	error

	status int
}

func (e statusError) HTTPStatusCode() int { return e.status }
func (e statusError) Unwrap() error       { return e.error }

// A stated verdict counts even when it arrives with, or after, the end of the time: that of the attempt, a cut, and
// the caller's; as a mark, as a status, and by a classifier. What every error of an ended context is to a classifier
// is no statement, and a cut connection is none either.
func TestAttemptTime_AStatedVerdictCountsWithATimeout(t *testing.T) {
	t.Parallel()
	errTeapot := errors.New("teapot")
	byClassifier := func(err error) verdict.Verdict {
		if errors.Is(err, errTeapot) {
			return verdict.Verdict{Class: verdict.ClassRateLimited, After: time.Minute}
		}
		return verdict.Verdict{}
	}
	everything := func(error) verdict.Verdict { return verdict.Verdict{Class: verdict.ClassBadRequest} }
	for _, c := range []struct {
		name     string
		of       func(ended error) error
		classify verdict.Classifier
		class    verdict.Class // zero: that of the end
	}{
		{"rate limited", func(err error) error { return verdict.RateLimited(err, time.Minute) }, nil, verdict.ClassRateLimited},
		{"permanent", verdict.Permanent, nil, verdict.ClassBadRequest},
		{"fatal", func(err error) error { return verdict.Fatal(err, 0) }, nil, verdict.ClassFatal},
		{"status", func(err error) error { return statusError{err, 429} }, nil, verdict.ClassRateLimited},
		{"status beside the timeout", func(err error) error { return errors.Join(err, statusError{testkit.ErrDown, 400}) }, nil, verdict.ClassBadRequest},
		{"classifier", func(err error) error { return errors.Join(errTeapot, err) }, byClassifier, verdict.ClassRateLimited},
		{"classifier of everything", func(err error) error { return err }, everything, 0},
		{"nothing stated", func(err error) error { return err }, nil, 0},
		{"status of the provider's own failure", func(err error) error { return statusError{err, 502} }, nil, 0},
	} {
		for _, end := range []struct {
			name     string
			timeout  time.Duration
			deadline time.Duration
			backup   bool
			class    verdict.Class
		}{
			{"attempt timeout", time.Second, time.Minute, false, verdict.ClassAttemptTimeout},
			{"cut", 0, 10 * time.Second, true, verdict.ClassCut},
			{"caller's deadline", 0, 10 * time.Second, false, verdict.ClassCallerDeadline},
		} {
			t.Run(c.name+", "+end.name, func(t *testing.T) {
				t.Parallel()
				testkit.Bubble(t, registry.Options{Classify: c.classify}, func(t *testing.T, reg *registry.Registry) {
					a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: end.timeout, Instance: testkit.ChatFunc(func(ctx context.Context, _ string) (string, error) {
						<-ctx.Done()
						return "", c.of(ctx.Err())
					})})
					if end.backup {
						testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1})
					}
					ctx, cancel := context.WithTimeout(t.Context(), end.deadline)
					defer cancel()
					var report registry.CallReport
					_, _ = testkit.Ask(ctx, testkit.Bind(reg), registry.ReportTo(&report))
					want := c.class
					if want == 0 {
						want = end.class
					}
					require.Equal(t, want.String(), report.Attempts[0].Class.String())
					cooling := want == verdict.ClassRateLimited || want == verdict.ClassFatal
					require.Equal(t, cooling, !a.Info().Cooldown.Until.IsZero())
				})
			})
		}
	}
}

// A lease, and so a stream, is not cut by itself: its holder asks for the time, and reports that it gave up.
func TestAttemptTime_ALeaseIsSharedByItsHolder(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Group: 1})
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			lease, err := testkit.Bind(reg).Acquire(ctx)
			require.NoError(t, err)
			require.Equal(t, "a", lease.Provider())
			limit, cut := lease.Steps().Share(2 * time.Second)
			require.Equal(t, 2*time.Second, limit)
			require.False(t, cut)
			limit, cut = lease.Steps().Share(time.Minute)
			require.True(t, cut)
			require.Less(t, limit, 10*time.Second)
			time.Sleep(limit)
			require.Equal(t, verdict.ClassCut, lease.Done(verdict.As(testkit.ErrDown, verdict.Verdict{Class: verdict.ClassCut})))
			cancel()
		}
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
		testkit.RequireCounts(t, a, 0, 0, 5, 0)
		lease, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		limit, cut := lease.Steps().Share(time.Minute)
		require.Equal(t, time.Minute, limit, "no other provider, and no deadline before")
		require.False(t, cut)
		lease.Done(nil)
	})
}
