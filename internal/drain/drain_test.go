package drain_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/drain"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errClosing = errors.New("disk full")

// provider is the host of a drain, and records what happens to it.
type provider struct {
	drain.Drain

	holds   bool         // the release waits until it is asked for
	finish  func() error // what remains to be done, in a goroutine; nil: nothing
	gone    error        // of what that has given up
	running tasks.Group
	timers  *schedule.Scheduler

	mu       sync.Mutex
	inFlight uint64
	history  []string
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{timers: schedule.New()}
	p.Init(p, status.ProviderID{Service: "s", Name: "p"})
	t.Cleanup(p.timers.Close)
	return p
}

func (p *provider) note(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history = append(p.history, what)
}

func (p *provider) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.history
}

func (p *provider) Quiesce() { p.note("quiesce") }

func (p *provider) InFlight() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inFlight
}

func (p *provider) Drained() (holdRelease bool) {
	p.note("drained")
	return p.holds
}

func (p *provider) GiveUp() (finish func() error, blocks bool) {
	p.note("give up")
	if p.finish == nil {
		return func() error { return nil }, false
	}
	return p.finish, true
}

func (p *provider) Unfinished() error { return p.gone }

func (p *provider) After(d time.Duration, f func()) *schedule.Timer { return p.timers.After(d, f) }

func (p *provider) Go(name string, f func()) { p.running.StartLast(name, f) }

// call begins a call, and returns its context and what ends it.
func (p *provider) call(t *testing.T) (ctx *attemptctx.Context, end func()) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inFlight++
	ctx = attemptctx.New(t.Context(), time.Time{}, p.Calls(), nil)
	ctx.Done() // arms it
	return ctx, func() {
		ctx.End()
		p.mu.Lock()
		p.inFlight--
		p.mu.Unlock()
		p.CheckIdle()
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// limitOf returns a wait that is over a grace period after d.
func limitOf(t *testing.T, d time.Duration) tasks.GraceWait {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	limit := tasks.WithGrace(ctx)
	t.Cleanup(limit.Stop)
	return limit
}

func TestStart_ReleasesAfterLastCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t)
		_, endFirst := p.call(t)
		ctx, endSecond := p.call(t)
		p.Start()
		require.Equal(t, []string{"quiesce"}, p.seen())
		endFirst()
		require.False(t, isClosed(p.Idle()))
		require.NoError(t, ctx.Err())
		endSecond()
		require.True(t, isClosed(p.Idle()))
		require.True(t, isClosed(p.Released()), "nothing remains to be done")
		require.Equal(t, []string{"quiesce", "drained", "give up"}, p.seen())

		p.Start()
		p.CheckIdle()
		p.ReleaseWhenIdle()
		require.Equal(t, []string{"quiesce", "drained", "give up", "quiesce"}, p.seen(), "each step happens once")
		require.NoError(t, p.AwaitReleased(limitOf(t, 0)))
	})
}

func TestStartWithin_CancelsCallsAfterLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t)
		ctx, end := p.call(t)
		p.StartWithin(time.Minute)
		time.Sleep(time.Minute - 1)
		require.NoError(t, ctx.Err())
		<-ctx.Done()
		require.ErrorIs(t, ctx.Cancelled(), fault.ErrClosed)
		require.EqualError(t, ctx.Cancelled(), `registry: provider "s/p": shutting down`)
		require.False(t, isClosed(p.Idle()), "the call goes on")
		end()
		require.True(t, isClosed(p.Released()))
	})
}

func TestStartWithin_StopsDeadlineWhenIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t)
		_, end := p.call(t)
		p.StartWithin(time.Minute)
		end()
		p.StartWithin(time.Minute) // is idle already
		late, end := p.call(t)
		defer end()
		time.Sleep(2 * time.Minute)
		require.NoError(t, late.Err(), "no deadline is left")
	})
}

func TestRelease_HeldUntilAskedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t)
		p.holds = true
		p.Start()
		require.True(t, isClosed(p.Idle()))
		require.Equal(t, []string{"quiesce", "drained"}, p.seen())
		require.NoError(t, p.Release(limitOf(t, 0)))
		require.Equal(t, []string{"quiesce", "drained", "give up"}, p.seen())

		p = newProvider(t)
		p.holds = true
		_, end := p.call(t)
		p.Start()
		p.ReleaseWhenIdle()
		require.False(t, isClosed(p.Released()))
		end()
		require.True(t, isClosed(p.Released()), "it was asked for before")
	})
}

func TestRelease_ReportsErrorOfClosing(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		finish func() error
		check  func(t *testing.T, err error)
	}{
		"nil":   {func() error { return nil }, func(t *testing.T, err error) { require.NoError(t, err) }},
		"error": {func() error { return errClosing }, func(t *testing.T, err error) { require.EqualError(t, err, `closing provider "s/p": disk full`) }},
		"panic": {func() error { panic("x") }, func(t *testing.T, err error) { require.ErrorAs(t, err, new(*verdict.PanicError)) }},
		"exit":  {func() error { runtime.Goexit(); return nil }, func(t *testing.T, err error) { require.ErrorAs(t, err, new(*verdict.PanicError)) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newProvider(t)
				p.finish = row.finish
				p.Start()
				<-p.Released()
				row.check(t, p.Release(limitOf(t, 0)))
				require.NoError(t, p.running.Wait(limitOf(t, 0)))
			})
		})
	}
}

func TestRelease_NamesWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t)
		closing := make(chan struct{})
		p.finish = func() error { <-closing; return nil }
		_, end := p.call(t)
		p.Start()
		began := time.Now()
		err := p.Release(limitOf(t, time.Second))
		require.Equal(t, time.Second+tasks.Grace, time.Since(began))
		require.ErrorIs(t, err, fault.ErrStuck)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, `provider "s/p": still running: 1 call in flight`)
		end()
		err = p.AwaitReleased(limitOf(t, time.Second))
		require.ErrorIs(t, err, fault.ErrStuck)
		require.ErrorContains(t, err, "closing its instance")
		err = p.running.Wait(limitOf(t, 0))
		require.ErrorContains(t, err, `closing of provider "s/p"`)
		close(closing)
		<-p.Released()
	})
}

func TestAwaitIdle_WithinContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t)
		_, end := p.call(t)
		p.Start()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p.AwaitIdle(ctx)
		require.Error(t, ctx.Err())
		time.AfterFunc(time.Second, end)
		p.AwaitIdle(t.Context())
		require.True(t, isClosed(p.Idle()))
	})
}

func TestAwaitAll_CancelsCallsWhenContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		obedient, idle, stuck := newProvider(t), newProvider(t), newProvider(t)
		idle.finish = func() error { return errClosing }
		ctx, end := obedient.call(t)
		context.AfterFunc(ctx, end)
		_, endStuck := stuck.call(t)
		all := []*drain.Drain{&obedient.Drain, &idle.Drain, &stuck.Drain}
		for _, d := range all {
			d.Start()
		}
		ending, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := drain.AwaitAll(ending, all)
		require.ErrorIs(t, err, errClosing)
		require.ErrorIs(t, err, fault.ErrStuck)
		require.EqualError(t, err, `registry: closing provider "s/p": disk full; provider "s/p": still running: 1 call in flight; context deadline exceeded`)
		require.True(t, isClosed(obedient.Released()))
		endStuck()
		require.NoError(t, drain.AwaitAll(t.Context(), []*drain.Drain{&obedient.Drain, &stuck.Drain}))
	})
}

func TestStartWithin_QuiescesAndReleasesAnIdleProviderAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t)
		p.StartWithin(time.Minute)
		require.Equal(t, []string{"quiesce", "drained", "give up"}, p.seen())
		require.True(t, isClosed(p.Released()))
	})
}

func TestAwaitAll_ReturnsTheOnlyFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t)
		p.finish = func() error { return errClosing }
		p.Start()
		require.EqualError(t, drain.AwaitAll(t.Context(), []*drain.Drain{&p.Drain}), `registry: closing provider "s/p": disk full`)
	})
}

// countingContext counts the functions that wait for its end. Package context leaves that to its AfterFunc.
type countingContext struct {
	context.Context

	done    chan struct{}
	waiting int
}

func (c *countingContext) Done() <-chan struct{} { return c.done }

func (c *countingContext) AfterFunc(func()) (stop func() bool) {
	c.waiting++
	return func() bool { c.waiting--; return true }
}

func TestAwaitAll_LeavesNothingBehindInItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t)
		p.Start()
		ctx := &countingContext{Context: context.Background(), done: make(chan struct{})}
		require.NoError(t, drain.AwaitAll(ctx, []*drain.Drain{&p.Drain}))
		require.Zero(t, ctx.waiting)
	})
}

// Calls that end at the same moment, and a release that is asked for meanwhile, leave one release.
func TestDrain_ConcurrentEndsReleaseOnce(t *testing.T) {
	t.Parallel()
	for range 200 {
		p := newProvider(t)
		p.holds = true
		var ending sync.WaitGroup
		for range 4 {
			_, end := p.call(t)
			ending.Go(end)
		}
		ending.Go(p.Start)
		ending.Go(p.ReleaseWhenIdle)
		ending.Wait()
		require.True(t, isClosed(p.Released()))
		require.ElementsMatch(t, []string{"quiesce", "drained", "give up"}, p.seen())
	}
}

func TestRelease_TellsWhatItHasGivenUpUntilThatEnds(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	p.gone = fault.ErrStuck
	p.Start()
	limit := tasks.WithGrace(t.Context())
	defer limit.Stop()
	err := p.Release(limit)
	require.ErrorIs(t, err, fault.ErrStuck)
	require.ErrorContains(t, err, `closing provider "s/p"`)
	p.gone = nil
	require.NoError(t, p.AwaitReleased(limit))
}

func TestMoveCallsOn_EndsContextsOnlyIfThatIsDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t)
		ctx, end := p.call(t)
		defer end()
		require.NoError(t, ctx.Err())
		due := false
		p.MoveCallsOn(time.Minute, func() bool { return due })
		time.Sleep(time.Minute)
		synctest.Wait()
		require.NoError(t, ctx.Err())
		due = true
		p.MoveCallsOn(time.Minute, func() bool { return due })
		time.Sleep(time.Minute)
		synctest.Wait()
		require.ErrorIs(t, ctx.Cancelled(), fault.ErrUnhealthy)
		require.ErrorContains(t, ctx.Cancelled(), `provider "s/p"`)
	})
}
