package registry_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/verdict"
)

// closable is a model whose closing can be watched.
type closable struct {
	chatModel

	close func() error
}

func (c closable) Close() error { return c.close() }

// badIsError is an error that must not be compared.
type badIsError struct{}

func (badIsError) Error() string { return "bad" }
func (badIsError) Is(error) bool { panic("Is") }

// listErrors is an error that cannot be compared.
type listErrors []error

func (listErrors) Error() string { return "list" }

// interruptedContext does something after it was asked whether it has ended.
type interruptedContext struct {
	context.Context //nolint:containedctx // a context around another

	after func()
}

func (c *interruptedContext) Err() error { err := c.Context.Err(); c.after(); return err }

// badDeadline is a context that must not be asked for its deadline.
type badDeadline struct {
	context.Context //nolint:containedctx // a context around another
}

func (badDeadline) Deadline() (time.Time, bool) { panic("Deadline") }

// badAfterFunc is a context that forgets how to take back what it was asked for.
type badAfterFunc struct {
	context.Context //nolint:containedctx // a context around another

	done chan struct{}
}

func (c badAfterFunc) Done() <-chan struct{}      { return c.done }
func (badAfterFunc) AfterFunc(func()) func() bool { return nil }

// classifying is a model with a classifier, as a method.
type classifying struct {
	chatModel
}

func (c *classifying) classify(error) verdict.Verdict { return verdict.Verdict{} }

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// overlapCore counts the writes that begin while another is in progress.
type overlapCore struct {
	zapcore.Core

	inside, overlaps atomic.Int64
}

func (c *overlapCore) Enabled(zapcore.Level) bool        { return true }
func (c *overlapCore) With([]zapcore.Field) zapcore.Core { return c }
func (c *overlapCore) Sync() error                       { return nil }

func (c *overlapCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return checked.AddCore(e, c)
}

func (c *overlapCore) Write(zapcore.Entry, []zapcore.Field) error {
	if c.inside.Add(1) > 1 {
		c.overlaps.Add(1)
	}
	runtime.Gosched()
	c.inside.Add(-1)
	return nil
}

// recovered returns what f panics with.
func recovered(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

func TestProviderThatLeavesWhileTheRegistryClosesIsReleased(t *testing.T) {
	t.Parallel()
	lost := 0
	const n = 3000
	for range n {
		reg := newRegistry(t, registry.Options{})
		var closed atomic.Bool
		p := add(t, reg, provider{Name: "p", Factory: func(context.Context) (chatModel, error) {
			return closable{says("x"), func() error { closed.Store(true); return nil }}, nil
		}})
		asked(t, bind(reg))
		var wg sync.WaitGroup
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_ = p.Unregister(ctx)
		})
		wg.Go(func() { _ = reg.Close(t.Context()) })
		wg.Wait()
		if !closed.Load() {
			lost++
		}
	}
	require.Zero(t, lost, "instances never closed of %d", n)
}

func TestInstanceIsClosedWhenItsLastCallEndsWhileCloseGivesUp(t *testing.T) {
	t.Parallel()
	lost, hung := 0, 0
	const n = 100
	for range n {
		reg := newRegistry(t, registry.Options{})
		var closed atomic.Bool
		p := add(t, reg, provider{Name: "p", Factory: func(context.Context) (chatModel, error) {
			return closable{hangs(), func() error { closed.Store(true); return nil }}, nil
		}})
		entered := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = registry.Call(context.Background(), bind(reg), func(ctx context.Context, m chatModel) (string, error) {
				close(entered)
				return m.Chat(ctx, "")
			})
		}()
		<-entered
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_ = reg.Close(ended)
		<-done
		<-p.Left()
		ctx, cancel2 := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := p.Unregister(ctx); err != nil {
			hung++
		}
		cancel2()
		if !closed.Load() {
			lost++
		}
	}
	require.Zero(t, lost, "never closed of %d; Unregister hung: %d", n, hung)
}

func TestInstanceIsClosedWhenItsLastCallEndsAfterCloseGaveUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		var closed atomic.Bool
		release := make(chan struct{})
		p := add(t, reg, provider{Name: "p", Factory: func(context.Context) (chatModel, error) {
			return closable{answers(func() (string, error) { <-release; return "", nil }), func() error { closed.Store(true); return nil }}, nil
		}})
		go func() { _, _ = ask(context.Background(), bind(reg)) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, reg.Close(ctx), registry.ErrStuck)
		close(release)
		synctest.Wait()
		require.NoError(t, p.Unregister(t.Context()))
		require.True(t, closed.Load(), "instance is never closed")
	})
}

func TestLeaseExpiresAlsoAfterCloseGaveUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		p := add(t, reg, provider{Name: "p"})
		_, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, reg.Close(ctx), registry.ErrStuck)
		pass(time.Hour)
		require.Zero(t, p.Info().InFlight, "lease holds its place for ever")
		require.NoError(t, p.Unregister(t.Context()))
	})
}

func TestContextOfAFactoryLastsAsLongAsWhatItMade(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var life context.Context
		add(t, reg, provider{Name: "p", Factory: func(ctx context.Context) (chatModel, error) {
			life = ctx //nolint:fatcontext // what a client does
			return says("x"), nil
		}})
		asked(t, bind(reg))
		require.NoError(t, life.Err(), "doc: its context ends when the provider is removed")
	})
}

func TestUnregisterEndsAFactoryThatACallWaitsFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		p := add(t, reg, provider{Name: "p", AttemptTimeout: registry.NoTimeout, Factory: func(ctx context.Context) (chatModel, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		go func() { _, _ = ask(context.Background(), bind(reg)) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := p.Unregister(ctx)
		_ = reg.Close(t.Context())
		require.NoError(t, err)
	})
}

func TestProductThatIsFinishedWhileItsProviderLeavesIsClosed(t *testing.T) {
	t.Parallel()
	lost := 0
	const n = 30
	for range n {
		reg := newRegistry(t, registry.Options{})
		var closed atomic.Bool
		made := make(chan struct{})
		p := add(t, reg, provider{Name: "p", Factory: func(ctx context.Context) (chatModel, error) {
			for range 20000 { // children make the end of the factory's context slow
				c, cancel := context.WithCancel(ctx)
				_, _ = c, cancel
			}
			close(made)
			return closable{says("x"), func() error { closed.Store(true); return nil }}, nil
		}})
		var asking sync.WaitGroup
		asking.Go(func() { _, _ = bind(reg).Get(t.Context()) })
		<-made
		time.Sleep(300 * time.Microsecond)
		_ = p.Unregister(t.Context())
		_ = reg.Close(t.Context())
		asking.Wait()
		if !closed.Load() {
			lost++
		}
	}
	require.Zero(t, lost, "made but never closed, of %d", n)
}

func TestForgottenLeaseOfAProviderThatLeftIsAnEventToo(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := add(t, reg, provider{Name: "p"})
		sub := reg.Subscribe(0)
		defer sub.Close()
		_, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		require.NoError(t, p.Unregister(t.Context()))
		info := p.Info()
		require.EqualValues(t, 1, info.Failures)
		require.Contains(t, kinds(t, sub), event.LeaseExpired)
	})
}

func TestManyRefusalsAtOnceParkOnceAndForNoLonger(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		hold := make(chan struct{})
		p := add(t, reg, provider{Name: "p", Instance: answers(func() (string, error) { <-hold; return "", verdict.Fatal(errDown, 0) })})
		sub := reg.Subscribe(0)
		defer sub.Close()
		for range 50 {
			go func() { _, _ = ask(context.Background(), bind(reg)) }()
		}
		synctest.Wait()
		close(hold)
		synctest.Wait()
		parked := 0
		for _, k := range kinds(t, sub) {
			if k == event.Parked {
				parked++
			}
		}
		require.LessOrEqual(t, time.Until(p.Info().CooldownUntil), 5*time.Minute, "outcomes during a cooldown do not make it grow")
		require.Equal(t, 1, parked)
	})
}

func TestRefusedCredentialsDuringARateLimitPark(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := add(t, reg, provider{Name: "p"})
		sub := reg.Subscribe(0)
		defer sub.Close()
		a, _ := bind(reg).Acquire(t.Context())
		b, _ := bind(reg).Acquire(t.Context())
		a.Done(verdict.RateLimited(errDown, 20*time.Minute))
		b.Done(verdict.Fatal(errDown, 0))
		_, err := ask(t.Context(), bind(reg))
		require.Contains(t, kinds(t, sub), event.Parked)
		require.ErrorIs(t, err, registry.ErrCredentials)
		_ = p
	})
}

func TestLongestAttemptTimeoutIsNotOverAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "p", AttemptTimeout: math.MaxInt64 - 1})
		pass(time.Second)
		_, err := registry.Call(t.Context(), bind(reg), func(ctx context.Context, _ chatModel) (int, error) { return 0, ctx.Err() })
		require.NoError(t, err)
	})
}

func TestOnceOnlyCallHasItsWholeDeadline(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		slow := chatFunc(func(ctx context.Context, _ string) (string, error) {
			select {
			case <-time.After(6 * time.Second):
				return "ok", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		})
		add(t, reg, provider{Name: "a", Instance: slow})
		add(t, reg, provider{Name: "b", Instance: slow})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := ask(ctx, bind(reg), registry.OnceOnly())
		require.NoError(t, err)
	})
}

func TestErrorsAreOneLineWhateverTheirCausesSay(t *testing.T) {
	t.Parallel()
	multi := errors.New("a\nb")
	reg := newRegistry(t, registry.Options{Admit: func(context.Context, registry.Definition) error { return multi }})
	_, err := chat.Register(t.Context(), reg, provider{Name: "p", Instance: says("x")})
	requireOneLine(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(multi)
	requireOneLine(t, reg.WaitReady(ctx, "nobody"))
	_ = reg.Close(t.Context())
	reg = newRegistry(t, registry.Options{})
	p := add(t, reg, provider{Name: "p", Factory: func(context.Context) (chatModel, error) {
		return closable{says("x"), func() error { return multi }}, nil
	}})
	asked(t, bind(reg))
	requireOneLine(t, p.Unregister(t.Context()))
	p = add(t, reg, provider{Name: "p"})
	_ = p.MarkUnhealthy(multi)
	requireOneLine(t, bind(reg).Explain().Candidates[0].Err)
	require.NotContains(t, p.Info().Reason, "\n")
	add(t, reg, provider{Name: "f", Factory: func(context.Context) (chatModel, error) { return nil, multi }})
	_, err = bind(reg).Get(ctx)
	requireOneLine(t, err)
	_ = reg.Close(t.Context())
}

func TestErrorWhoseIsPanicsIsNeverAskedForText(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	p := add(t, reg, provider{Name: "p"})
	_ = p.MarkUnhealthy(badIsError{})
	_, err := ask(t.Context(), bind(reg))
	require.NotPanics(t, func() { _ = err.Error() })
	_ = reg.Close(t.Context())
}

func TestManySaysThatItsContextHasEnded(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "p", Factory: func(ctx context.Context) (chatModel, error) { <-ctx.Done(); return nil, ctx.Err() }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := bind(reg).Get(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = bind(reg).Many(ctx, 0)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestNoRealProviderIsEligibleWhereOnlyMocksArePicked(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{OnlyMocks: true}, func(t *testing.T, reg *registry.Registry) {
		p := add(t, reg, provider{Name: "p"})
		_, err := ask(t.Context(), bind(reg))
		require.Error(t, err)
		require.False(t, p.Info().Eligible)
		require.Zero(t, reg.Stats().Eligible)
	})
}

func TestHungCloserIsTheOnlyOneThatIsNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		release := make(chan struct{})
		for i := range 4 {
			add(t, reg, provider{Name: fmt.Sprintf("p%d", i), Factory: func(context.Context) (chatModel, error) {
				return closable{says("x"), func() error {
					if i == 3 {
						<-release
					}
					return nil
				}}, nil
			}})
		}
		_, err := bind(reg).Many(t.Context(), 0)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = reg.Close(ctx)
		close(release)
		synctest.Wait()
		require.NotContains(t, err.Error(), `"p0"`)
	})
}

func TestEndOfTheCallerIsNotMistakenForTheAttempts(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	p := add(t, reg, provider{Name: "p"})
	inner, cancel := context.WithCancelCause(t.Context())
	ctx := &interruptedContext{inner, func() {}}
	_, _ = registry.Call(ctx, bind(reg), func(ctx2 context.Context, _ chatModel) (int, error) {
		_ = ctx2.Done()
		ctx.after = func() {
			ctx.after = func() {}
			cancel(registry.ErrAttemptTimeout) // an outer attempt's timeout fires
			<-ctx2.Done()
		}
		return 0, verdict.Permanent(errDown)
	})
	require.Zero(t, p.Info().Failures)
	_ = reg.Close(t.Context())
}

func TestNothingThatWaitsKeepsARemovedInstanceAlive(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"nothing", "cooldown", "late failure", "factory retry"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, registry.Options{})
			freed := make(chan struct{})
			func() {
				inst := &classifying{chatModel: says("x")}
				runtime.AddCleanup(inst, func(int) { close(freed) }, 0)
				pr := provider{Name: "p", Classify: inst.classify, Instance: inst, Breaker: registry.BreakerPolicy{FailureThreshold: 1}}
				if how == "factory retry" {
					pr.Instance = nil
					pr.Factory = func(context.Context) (chatModel, error) { _ = inst; return nil, errDown }
				}
				p := add(t, reg, pr)
				switch how {
				case "cooldown":
					l, err := bind(reg).Acquire(t.Context())
					require.NoError(t, err)
					l.Done(verdict.RateLimited(errDown, time.Hour))
				case "factory retry":
					_, _ = ask(t.Context(), bind(reg))
				case "late failure":
					l, err := bind(reg).Acquire(t.Context())
					require.NoError(t, err)
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					_ = p.Unregister(ctx)
					l.Done(errDown)
				}
				require.NoError(t, p.Unregister(t.Context()))
			}()
			for alive := true; alive; { // until the test's own deadline
				runtime.GC()
				select {
				case <-freed:
					alive = false
				default:
				}
			}
			require.NoError(t, reg.Close(t.Context()))
		})
	}
}

func TestLoggerIsCalledByOneGoroutineAtATime(t *testing.T) {
	t.Parallel()
	core := &overlapCore{}
	reg := newRegistry(t, registry.Options{Logger: zap.New(core)})
	p := add(t, reg, provider{Name: "p"})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 4000 {
				_ = p.MarkUnhealthy(errDown)
				for range (i % 11) * 20 {
					runtime.Gosched()
				}
			}
		})
	}
	wg.Wait()
	_ = reg.Close(t.Context())
	require.Zero(t, core.overlaps.Load())
}

func TestCallersDeadlineOnASocketIsNeutral(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	p := add(t, reg, provider{Name: "p", Breaker: registry.BreakerPolicy{FailureThreshold: 1 << 20}})
	r := bind(reg)
	for range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		_, _ = registry.Call(ctx, r, func(ctx context.Context, _ chatModel) (int, error) {
			a, b := net.Pipe()
			defer func() { _ = errors.Join(a.Close(), b.Close()) }()
			d, _ := ctx.Deadline()
			_ = a.SetDeadline(d)
			_, err := a.Read(make([]byte, 1))
			return 0, err
		})
		cancel()
	}
	info := p.Info()
	require.Zero(t, info.Failures, "the caller's deadline is neutral")
	_ = reg.Close(t.Context())
}

func TestContextThatIsNilIsAnErrorAndChangesNothing(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	p := add(t, reg, provider{Name: "p"})
	var none context.Context
	_, call := ask(none, bind(reg))
	_, acquire := bind(reg).Acquire(none)
	_, many := bind(reg).Many(none, 0)
	var typed *interruptedContext
	_, until := chat.Register(t.Context(), reg, provider{Name: "q", Instance: says("q"), Until: typed})
	for _, err := range []error{call, acquire, many, until, reg.WaitReady(none, "x"), p.Unregister(none), reg.Close(none)} {
		require.ErrorIs(t, err, registry.ErrInvalid)
	}
	_, there := reg.Provider("q")
	require.False(t, there)
	require.Zero(t, p.Info().Attempts)
	require.NoError(t, reg.Close(t.Context()))
}

func TestContextMayBePrintedWhileItIsArmed(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	add(t, reg, provider{Name: "p"})
	_, err := registry.Call(t.Context(), bind(reg), func(ctx context.Context, _ chatModel) (int, error) {
		var wg sync.WaitGroup
		wg.Go(func() { _ = ctx.Done() })
		wg.Go(func() { _ = fmt.Sprintf("%v", ctx) })
		wg.Wait()
		return 0, nil
	})
	require.NoError(t, err)
	_ = reg.Close(t.Context())
}

func TestProductOfTheWrongTypeIsClosed(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	chat.Bind(reg, registry.Query{})
	var closed atomic.Bool
	_, err := reg.Register(t.Context(), chat.Name(), registry.Provider[any]{Name: "p", Factory: func(context.Context) (any, error) {
		return closerFunc(func() error { closed.Store(true); return nil }), nil
	}})
	require.NoError(t, err)
	_, err = bind(reg).Get(t.Context())
	require.Error(t, err)
	require.NoError(t, reg.Close(t.Context()))
	require.True(t, closed.Load(), "what a factory made belongs to the registry")
}

func TestUnregisterWaitsForTheEndOfAFactoryAndClosesItsProduct(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var closed atomic.Bool
		p := add(t, reg, provider{Name: "p", Factory: func(ctx context.Context) (chatModel, error) {
			<-ctx.Done()
			time.Sleep(time.Second)
			return closable{says("x"), func() error { closed.Store(true); return errDown }}, nil
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := bind(reg).Get(ctx)
		require.Error(t, err)
		err = p.Unregister(t.Context())
		c := closed.Load()
		pass(2 * time.Second)
		require.True(t, c, "Unregister returned %v before the closing", err)
	})
}

func TestFailureOfAnInnerCallIsJustAFailure(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		outer := registry.NewService[chatModel]("agent")
		add(t, reg, provider{Name: "inner", Instance: fails(verdict.Fatal(errDown, 0))})
		o, err := outer.Register(t.Context(), reg, provider{Name: "outer", Instance: answers(func() (string, error) {
			return ask(context.Background(), bind(reg))
		})})
		require.NoError(t, err)
		_, err = ask(t.Context(), outer.Bind(reg, registry.Query{}))
		require.Error(t, err)
		require.True(t, o.Info().Eligible, "outer: %s", o.Info().Reason)
	})
}

func TestCauseOfAContextThatNobodyAskedBefore(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "p", AttemptTimeout: time.Second})
		caller, cancel := context.WithCancel(t.Context())
		defer cancel()
		for name, c := range map[string]context.Context{"background": context.Background(), "cancellable": caller} {
			_, _ = registry.Call(c, bind(reg), func(ctx context.Context, _ chatModel) (int, error) {
				time.Sleep(2 * time.Second)
				if cause := context.Cause(ctx); !errors.Is(cause, registry.ErrAttemptTimeout) {
					t.Errorf("%s: cause is %v", name, cause)
				}
				return 0, nil
			})
		}
	})
}

func TestCausesThatCannotBeComparedDoNotPanic(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	p := add(t, reg, provider{Name: "p"})
	_ = p.MarkUnhealthy(listErrors{errDown})
	_, err := ask(t.Context(), bind(reg))
	_, err2 := ask(t.Context(), bind(reg))
	require.NotPanics(t, func() { errors.Is(err, err2) })
	require.NotPanics(t, func() {
		var u *registry.UnavailableError
		errors.As(err2, &u)
		target := errors.Unwrap(u.Candidates[0].Err)
		errors.Is(err, target)
	})
	_ = reg.Close(t.Context())
}

func TestNoTimeIsGivenForWhatDoesNotEndByItself(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := add(t, reg, provider{Name: "p"})
		l, _ := bind(reg).Acquire(t.Context())
		l.Done(verdict.RateLimited(errDown, time.Second))
		_ = p.MarkUnhealthy(errDown)
		_, err := ask(t.Context(), bind(reg))
		var u *registry.UnavailableError
		require.ErrorAs(t, err, &u)
		require.Zero(t, u.RetryIn, "health does not end by itself")
	})
}

func TestFailureFromBeforeAResetDoesNotCount(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := add(t, reg, provider{Name: "p", Breaker: registry.BreakerPolicy{FailureThreshold: 1}})
		l, _ := bind(reg).Acquire(t.Context())
		require.NoError(t, p.Reset())
		l.Done(errDown)
		require.Equal(t, registry.BreakerClosed, p.Breaker().State)
	})
}

func TestProviderThatFellIllWhileItWasMadeIsPassedBy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := add(t, reg, provider{Name: "p", Factory: func(context.Context) (chatModel, error) { time.Sleep(time.Second); return says("p"), nil }})
		add(t, reg, provider{Name: "q"})
		done := make(chan string)
		go func() { a, _ := ask(context.Background(), bind(reg)); done <- a }()
		synctest.Wait()
		_ = p.MarkUnhealthy(errDown)
		require.Equal(t, "q", <-done)
	})
}

func TestContextThatPanicsLeaksNothing(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	p := add(t, reg, provider{Name: "p"})
	_ = recovered(func() { _, _ = ask(badDeadline{t.Context()}, bind(reg)) })
	if n := p.Info().InFlight; n != 0 {
		t.Error("in flight for ever:", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.NoError(t, reg.Close(ctx))
}

func TestAttemptWithoutTimeoutIsNeverCutShort(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", AttemptTimeout: registry.NoTimeout})
		add(t, reg, provider{Name: "b", AttemptTimeout: registry.NoTimeout})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := registry.Call(ctx, bind(reg), func(got context.Context, _ chatModel) (int, error) {
			require.Equal(t, ctx, got)
			return 0, nil
		})
		require.NoError(t, err)
	})
}

func TestQueryThatIsHandedOutIsTheCallersOwn(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "p", Capabilities: []string{"a"}})
		r := bind(reg, "a")
		e := r.Explain()
		e.Query.Require[0] = "zzz"
		add(t, reg, provider{Name: "q", Capabilities: []string{"a"}})
		_, err := ask(t.Context(), r)
		require.NoError(t, err)
	})
}

func TestSnapshotIsTheCallersOwn(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "p", Metadata: map[string]string{"k": "v"}})
		s := reg.Subscribe(0)
		defer s.Close()
		s.Snapshot()[0].Metadata["k"] = "changed"
		require.Equal(t, "v", s.Snapshot()[0].Metadata["k"])
	})
}

func TestResolversOfOneQueryShareTheirTurnsAmongAnyNumberOfQueries(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for _, n := range []string{"a", "b", "c"} {
			add(t, reg, provider{Name: n, Strategy: registry.StrategyRoundRobin})
		}
		r1 := bind(reg)
		for i := range 256 {
			chat.Bind(reg, registry.Query{Handler: "h" + strconv.Itoa(i)})
		}
		r2 := bind(reg)
		var answers []string
		for range 3 {
			answers = append(answers, asked(t, r1), asked(t, r2))
		}
		require.Equal(t, []string{"a", "b", "c", "a", "b", "c"}, answers)
	})
}

func TestFactoryThatHangsCostsOneCallItsTime(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "hung", Factory: func(ctx context.Context) (chatModel, error) { <-ctx.Done(); return nil, ctx.Err() }})
		add(t, reg, provider{Name: "good"})
		start := time.Now()
		for range 10 {
			require.Equal(t, "good", asked(t, bind(reg)))
		}
		require.Less(t, time.Since(start), 2*time.Minute, "10 calls")
	})
}

func TestCallThatWaitsForAFactoryIsNoAttempt(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := add(t, reg, provider{Name: "hung", Factory: func(ctx context.Context) (chatModel, error) { <-ctx.Done(); return nil, ctx.Err() }})
		go func() { _, _ = ask(context.Background(), bind(reg)) }()
		synctest.Wait()
		before := p.Info().Attempts
		pass(time.Minute)
		require.GreaterOrEqual(t, p.Info().Attempts, before)
	})
}

func TestTextOfAFailedCallIsBounded(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, registry.Options{})
	add(t, reg, provider{Name: "first", Priority: registry.PriorityCritical, Instance: fails(errDown)})
	for i := range 2000 {
		p := add(t, reg, provider{Name: fmt.Sprint("p", i)})
		_ = p.MarkUnhealthy(errDown)
	}
	_, err := ask(t.Context(), bind(reg))
	require.Less(t, len(err.Error()), 10000)
	_ = reg.Close(t.Context())
}

func TestWindowsThatAreTooSmallTakeNoTimeFromTheOthers(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		add(t, reg, provider{Name: "a", Window: 100, Instance: fails(verdict.As(errDown, verdict.Verdict{Class: verdict.ClassTooLong}))})
		add(t, reg, provider{Name: "b", Window: 200, Instance: chatFunc(func(ctx context.Context, _ string) (string, error) {
			select {
			case <-ctx.Done():
				return "", ctx.Err()
			case <-time.After(6 * time.Second):
				return "b", nil
			}
		})})
		add(t, reg, provider{Name: "c", Window: 50})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := ask(ctx, bind(reg))
		require.NoError(t, err)
	})
}

func TestContextThatPanicsDoesNotDisturbThoseWhoEndIt(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := add(t, reg, provider{Name: "p"})
		ended := make(chan error, 1)
		go func() {
			_, err := registry.Call(badAfterFunc{t.Context(), make(chan struct{})}, bind(reg), func(ctx context.Context, _ chatModel) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			})
			ended <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, p.Unregister(ctx))
		require.ErrorIs(t, <-ended, registry.ErrClosed)
	})
}
