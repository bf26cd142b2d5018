package registry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// hostileErrors are errors whose trees cannot be searched, alone and inside others.
func hostileErrors() map[string]error {
	loop := &testkit.LoopError{}
	return map[string]error{
		"wraps itself": loop, "inside": fmt.Errorf("x: %w", loop), "joined": errors.Join(testkit.ErrDown, loop),
		"marked": verdict.As(loop, verdict.Verdict{Class: verdict.ClassServerError}), "Unwrap panics": testkit.BadUnwrapError{},
	}
}

// mustSearch searches an error, which must end.
func mustSearch(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	require.NotErrorIs(t, err, errors.ErrUnsupported)
	var none interface{ Nothing() }
	require.NotErrorAs(t, err, &none)
	require.NotEmpty(t, err.Error())
}

// Variants of where such an error comes from: the function of a call and its panic, with hooks that search it, leases
// (Done, MoveOn, Guard), probes, health stated by hand, factories, authorisers, causes of contexts, verdict.Of; and in
// startup: see internal/fault, through which all other code of users runs.
func TestCall_ErrorThatWrapsItselfEndsTheCall(t *testing.T) {
	t.Parallel()
	for name, hostile := range hostileErrors() {
		for _, panics := range []bool{false, true} {
			t.Run(fmt.Sprint(name, panics), func(t *testing.T) {
				t.Parallel()
				reported := 0
				testkit.Bubble(t, registry.Options{PanicsAsErrors: panics, Hooks: registry.Hooks{AfterCall: func(_ context.Context, r registry.CallReport) {
					mustSearch(t, r.Err)
					reported++
				}}}, func(t *testing.T, reg *registry.Registry) {
					a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Answers(func() (string, error) {
						if panics {
							panic(hostile)
						}
						return "", hostile
					})})
					_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
					mustSearch(t, err)
					require.Equal(t, 1, reported)
					require.Zero(t, a.Info().InFlight)
					require.EqualValues(t, 1, a.Info().Failures)
				})
			})
		}
	}
}

func TestCall_ErrorThatWrapsItselfStillMatches(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		loop := &testkit.LoopError{}
		marked := verdict.Permanent(loop)
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(marked)})
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		require.ErrorIs(t, err, loop)
		require.ErrorIs(t, err, marked)
		require.EqualValues(t, 1, a.Info().Successes, "the mark is read: a bad request")
	})
}

func TestLease_ErrorThatWrapsItselfEndsTheLease(t *testing.T) {
	t.Parallel()
	for name, hostile := range hostileErrors() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{PanicsAsErrors: true}, func(t *testing.T, reg *registry.Registry) {
				a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
				r := testkit.Bind(reg)
				for _, end := range []func(*registry.Lease[testkit.ChatModel]) error{
					func(l *registry.Lease[testkit.ChatModel]) error { l.Done(hostile); return l.Steps().Failure() },
					func(l *registry.Lease[testkit.ChatModel]) error { _, err := l.MoveOn(hostile); return err },
					func(l *registry.Lease[testkit.ChatModel]) error {
						err := l.Guard(func() error { panic(hostile) })
						l.Done(err)
						return err
					},
				} {
					l, err := r.Acquire(t.Context())
					require.NoError(t, err)
					mustSearch(t, end(l))
				}
				require.Zero(t, a.Info().InFlight)
			})
		})
	}
}

func TestRefusal_SearchesEndWhateverKeepsProvidersAway(t *testing.T) {
	t.Parallel()
	for name, hostile := range hostileErrors() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				testkit.Add(t, reg, testkit.Provider{Name: "probed", Health: health.Policy{Probe: func(context.Context) error { return hostile }, Fall: 1}})
				testkit.Add(t, reg, testkit.Provider{Name: "made", Factory: func(context.Context) (testkit.ChatModel, error) { return nil, hostile }})
				require.NoError(t, testkit.Add(t, reg, testkit.Provider{Name: "marked"}).MarkUnhealthy(hostile))
				testkit.Pass(time.Minute)
				_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
				require.ErrorIs(t, err, registry.ErrUnavailable)
				mustSearch(t, err)
			})
			testkit.Bubble(t, registry.Options{Authorize: func(context.Context, string, string, string) error { return hostile }}, func(t *testing.T, reg *registry.Registry) {
				testkit.Add(t, reg, testkit.Provider{Name: "a"})
				_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
				mustSearch(t, err)
				ctx, cancel := context.WithCancelCause(t.Context())
				cancel(hostile)
				_, err = testkit.Ask(ctx, testkit.Bind(reg))
				require.ErrorIs(t, err, context.Canceled)
				mustSearch(t, err)
				_, err = reg.Subscribe(0).Next(ctx)
				if err != nil {
					mustSearch(t, err)
				}
				mustSearch(t, reg.WaitReady(ctx, "missing"))
			})
		})
	}
}

// Variants: a context whose methods panic or block for ever once its request is over, armed or not when that
// happens; met by the goroutine of the timers (a lease that expires, a drain that cancels), by a call that ends, and
// by goroutines of package context.
func TestLease_ExpiresWhateverItsContextDoes(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	for name, over := range map[string]func(){"panics": func() { panic("request is over") }, "blocks": func() { <-release }} {
		for _, armed := range []bool{false, true} {
			t.Run(fmt.Sprint(name, armed), func(t *testing.T) {
				t.Parallel()
				hostileLease(t, over, armed, name == "blocks" && !armed)
			})
		}
	}
}

// hostileLease expires a lease and has another one drained, whose contexts do over. stuck tells that something of
// theirs stays behind.
func hostileLease(t *testing.T, over func(), armed, stuck bool) {
	t.Helper()
	reg := testkit.New(t, registry.Options{DrainTimeout: 10 * time.Millisecond})
	a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pooled := &testkit.PooledContext{Context: ctx}
	l, err := testkit.Bind(reg).Acquire(pooled)
	require.NoError(t, err)
	kept, err := testkit.Bind(reg).Acquire(pooled, registry.AttemptTimeout(time.Hour))
	require.NoError(t, err)
	if armed {
		_, _ = l.Context().Err(), kept.Context().Err() // the first one may be over already
	}
	pooled.End(over)
	require.Eventually(t, func() bool { return a.Info().InFlight == 1 }, 10*time.Second, time.Millisecond)
	b := testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true})
	require.NoError(t, b.ForceOpen(time.Millisecond, "the timers go on"))
	require.Eventually(t, func() bool { return b.Breaker().State == status.BreakerHalfOpen }, 10*time.Second, time.Millisecond)
	kept.Done(nil)
	short, end := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer end()
	if err := reg.Close(short); stuck {
		require.ErrorIs(t, err, registry.ErrStuck)
	} else {
		require.NoError(t, err)
	}
}

func TestCall_GoesOnWhereTheContextPanicsLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		pooled := &testkit.PooledContext{Context: ctx}
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Minute, Instance: testkit.ChatFunc(
			func(ctx context.Context, _ string) (string, error) {
				derived, end := context.WithCancel(ctx) // package context asks from goroutines of its own
				defer end()
				pooled.End(func() { panic("request is over") })
				cancel()
				<-derived.Done()
				return "answer", nil
			},
		)})
		text, err := testkit.Ask(pooled, testkit.Bind(reg))
		require.NoError(t, err)
		require.Equal(t, "answer", text)
		require.Zero(t, a.Info().InFlight)
		require.NoError(t, reg.Close(t.Context()))
	})
}
