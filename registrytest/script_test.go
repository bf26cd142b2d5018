package registrytest_test

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/verdict"
)

func TestScript_PlaysItsSequenceInOrder(t *testing.T) {
	t.Parallel()
	s := registrytest.NewScript(registrytest.Error(errDown).Times(2), registrytest.OK()).Then(registrytest.RateLimit(time.Minute))
	require.Equal(t, 4, s.Left())
	require.ErrorIs(t, s.Play(t.Context()), errDown)
	require.Equal(t, 3, s.Left())
	require.ErrorIs(t, s.Play(t.Context()), errDown)
	require.NoError(t, s.Play(t.Context()))
	require.Equal(t, verdict.Verdict{Class: verdict.ClassRateLimited, After: time.Minute}, verdict.Of(s.Play(t.Context())))
	require.NoError(t, s.Play(t.Context()))
	s.Always(registrytest.Error(errDown))
	require.ErrorIs(t, s.Play(t.Context()), errDown)
	require.ErrorIs(t, s.Play(t.Context()), errDown)
	require.NoError(t, s.Clear().Play(t.Context()))
	require.Equal(t, 8, s.Calls())
	require.Zero(t, s.InFlight())
	require.NoError(t, new(registrytest.Script).Play(t.Context()))
	require.NoError(t, registrytest.NewScript(registrytest.Error(nil)).Play(t.Context()))
}

func TestSometimes_DependsOnItsSeedAlone(t *testing.T) {
	t.Parallel()
	const calls = 10000
	run := func(seed uint64) (failed int, which []bool) {
		s := registrytest.NewScript().Sometimes(seed, 0.2, registrytest.Error(errDown))
		for range calls {
			err := s.Play(t.Context())
			which = append(which, err != nil)
			if err != nil {
				failed++
			}
		}
		return failed, which
	}
	failed, first := run(1)
	_, again := run(1)
	_, other := run(2)
	require.InDelta(t, 0.2*calls, failed, 0.02*calls)
	require.Equal(t, first, again)
	require.NotEqual(t, first, other)
	require.Panics(t, func() { registrytest.NewScript().Sometimes(1, 1.1, registrytest.OK()) })
}

func TestDuring_PrecedesSometimesAndTheSequence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := registrytest.NewScript(registrytest.Fail(verdict.ClassBadRequest)).
			During(time.Minute, 2*time.Minute, registrytest.Error(errDown)).
			Sometimes(1, 1, registrytest.OK())
		require.NoError(t, s.Play(t.Context()))
		time.Sleep(time.Minute)
		require.ErrorIs(t, s.Play(t.Context()), errDown)
		time.Sleep(time.Minute)
		require.NoError(t, s.Play(t.Context()))
		require.Equal(t, 1, s.Left())
	})
}

func TestStep_WaitsAndHeedsItsContextUnlessDeaf(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		timed := func(step registrytest.Step) (time.Duration, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			begin := time.Now()
			err := registrytest.NewScript(step).Play(ctx)
			return time.Since(begin), err
		}
		took, err := timed(registrytest.OK().After(time.Millisecond))
		require.NoError(t, err)
		require.Equal(t, time.Millisecond, took)
		for _, step := range []registrytest.Step{
			registrytest.OK().After(time.Hour), registrytest.OK().Until(make(chan struct{})),
			registrytest.Hang(), registrytest.Stall(3),
		} {
			took, err = timed(step)
			require.ErrorIs(t, err, context.DeadlineExceeded, step)
			require.Equal(t, time.Second, took)
		}
		took, err = timed(registrytest.Error(errDown).After(time.Hour).Deaf())
		require.ErrorIs(t, err, errDown)
		require.Equal(t, time.Hour, took)

		released := make(chan struct{})
		s := registrytest.NewScript(registrytest.OK().Until(released).Deaf())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Play(ctx) }()
		cancel()
		synctest.Wait()
		require.Equal(t, 1, s.InFlight())
		close(released)
		require.NoError(t, <-ended)
	})
}

func TestStep_PanicExitAndCut(t *testing.T) {
	t.Parallel()
	s := registrytest.NewScript(registrytest.Panic("boom"), registrytest.Exit(), registrytest.Cut(2), registrytest.CutWith(2, errDown))
	require.PanicsWithValue(t, "boom", func() { _ = s.Play(t.Context()) })
	exited := true
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Play(t.Context())
		exited = false
	}()
	<-done
	require.True(t, exited)
	require.ErrorIs(t, s.Play(t.Context()), io.ErrUnexpectedEOF)
	require.ErrorIs(t, s.Play(t.Context()), errDown)
	require.Zero(t, s.InFlight())
}

func TestHTTPStatus_IsClassifiedLikeAServers(t *testing.T) {
	t.Parallel()
	s := registrytest.NewScript(registrytest.HTTPStatus(http.StatusServiceUnavailable, time.Second), registrytest.HTTPStatus(http.StatusUnauthorized, 0))
	require.Equal(t, verdict.Verdict{Class: verdict.ClassOverloaded, After: time.Second}, verdict.Of(s.Play(t.Context())))
	err := s.Play(t.Context())
	require.Equal(t, verdict.ClassUnauthenticated, verdict.Of(err).Class)
	require.EqualError(t, err, "scripted: 401 Unauthorized")
}

func TestStream_FailsIsCutAndStalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		read := func(step registrytest.Step) (got []int, err error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			s := registrytest.NewScript(step)
			items, err := registrytest.Stream(ctx, s, 1, 2, 3)
			if err != nil {
				require.Zero(t, s.InFlight())
				return nil, err
			}
			require.Equal(t, 1, s.InFlight())
			for item, err := range items {
				if err != nil {
					return got, err
				}
				got = append(got, item)
			}
			require.Zero(t, s.InFlight())
			return got, nil
		}
		got, err := read(registrytest.OK())
		require.NoError(t, err)
		require.Equal(t, []int{1, 2, 3}, got)
		_, err = read(registrytest.Error(errDown))
		require.ErrorIs(t, err, errDown)
		got, err = read(registrytest.Cut(2))
		require.NoError(t, err, "as if it were complete")
		require.Equal(t, []int{1, 2}, got)
		got, err = read(registrytest.CutWith(1, errDown))
		require.ErrorIs(t, err, errDown)
		require.Equal(t, []int{1}, got)
		got, err = read(registrytest.Stall(2))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, []int{1, 2}, got)
		got, err = read(registrytest.Cut(7))
		require.NoError(t, err)
		require.Len(t, got, 3)
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	items, err := registrytest.Stream(ctx, registrytest.NewScript(), 1, 2)
	require.NoError(t, err)
	var last error
	for _, err := range items {
		cancel()
		last = err
	}
	require.ErrorIs(t, last, context.Canceled)
}

func TestStep_String(t *testing.T) {
	t.Parallel()
	for want, step := range map[string]registrytest.Step{
		"answer":                                  registrytest.OK(),
		`error "down" after 1s, 3 times`:          registrytest.Error(errDown).After(time.Second).Times(3),
		`error "scripted: server error"`:          registrytest.Fail(verdict.ClassServerError),
		"hang":                                    registrytest.Hang(),
		"panic boom":                              registrytest.Panic("boom"),
		"exit when released, deaf":                registrytest.Exit().Until(make(chan struct{})).Deaf(),
		"cut after 2 items":                       registrytest.Cut(2),
		`cut after 2 items with "down"`:           registrytest.CutWith(2, errDown),
		"stall after 0 items":                     registrytest.Stall(-1),
		`error "scripted: 429 Too Many Requests"`: registrytest.RateLimit(time.Second),
	} {
		require.Equal(t, want, step.String())
	}
}

func TestScript_IsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	s := registrytest.NewScript(registrytest.Error(errDown).Times(100)).Sometimes(1, 0.1, registrytest.OK())
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 100 {
				_ = s.Play(t.Context())
				s.Then(registrytest.OK())
				runtime.Gosched()
			}
		})
	}
	callers.Wait()
	require.Equal(t, 800, s.Calls())
	require.Zero(t, s.InFlight())
}

func TestHealth_ReturnsTheSetResult(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := registrytest.New(t, registry.Options{})
		add(t, reg, provider{Name: "p"})
		ill := &struct {
			fake
			registrytest.Health
		}{fake: says("fake")}
		registrytest.Swap[chatModel](t, reg, chat, "p", ill)
		require.Equal(t, "fake", asked(t, reg))
		ill.Set(errDown)
		registration, ok := reg.Provider("chat", "p")
		require.True(t, ok)
		for range 3 {
			_, err := registration.CheckHealth(t.Context())
			require.NoError(t, err)
		}
		_, err := ask(t.Context(), reg)
		require.ErrorIs(t, err, registry.ErrUnhealthy)
		require.ErrorContains(t, err, "down")
		ill.Set(nil)
		ill.Use("gpu memory", 0.93)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, "fake", asked(t, reg))
		require.Equal(t, "degraded", registration.Health().State.String())
		require.Greater(t, ill.Checks(), 4)
	})
}
