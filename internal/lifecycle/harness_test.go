package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/lifecycle"
	"github.com/capreg/registry/startup"
)

type component = lifecycle.Component

var errBroken = errors.New("broken")

// bubble runs a test on fake time.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

// journal notes what happens, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(format string, values ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, values...))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// component returns one that takes some time to start, notes starts and stops, and provides a capability of its own
// name.
func (j *journal) component(name string, takes time.Duration, needs ...string) component {
	return component{
		Name: name, Provides: []string{name}, Needs: startup.Capabilities(needs...),
		Start: func(ctx context.Context, _ *startup.Run) error {
			j.note("+%s", name)
			return sleep(ctx, takes)
		},
		Stop: func(context.Context) error {
			j.note("-%s", name)
			return nil
		},
	}
}

func sleep(ctx context.Context, takes time.Duration) error {
	select {
	case <-time.After(takes):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// broken returns a component whose start fails.
func broken(name string, provides ...string) component {
	return component{Name: name, Provides: provides, Start: func(context.Context, *startup.Run) error { return errBroken }}
}

// withDefaults fills in what the root package does.
func withDefaults(components []component) []component {
	options, _ := lifecycle.CheckedOptions(startup.Options{})
	if v := lifecycle.CheckComponents(components, options); v != nil {
		panic(v)
	}
	return components
}

// build returns an engine whose every transition is checked.
func build(tb testing.TB, options startup.Options, components ...component) *lifecycle.Engine {
	tb.Helper()
	e, err := lifecycle.New(options, withDefaults(components))
	require.NoError(tb, err)
	e.Watch(func(_ string, wrong error) {
		if wrong != nil {
			tb.Error(wrong)
		}
	})
	return e
}

// started returns an engine that has started the components.
func started(tb testing.TB, options startup.Options, components ...component) *lifecycle.Engine {
	tb.Helper()
	e := build(tb, options, components...)
	_, err := e.Start(tb.Context())
	require.NoError(tb, err)
	require.NoError(tb, e.Check())
	return e
}

// startAside starts in a goroutine.
func startAside(tb testing.TB, e *lifecycle.Engine) <-chan error {
	tb.Helper()
	done := make(chan error, 1)
	go func() { _, err := e.Start(tb.Context()); done <- err }()
	return done
}

// stopped stops an engine and fails the test when that ends with its context only.
func stopped(tb testing.TB, e *lifecycle.Engine) error {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Hour)
	defer cancel()
	err := e.Stop(ctx)
	require.NoError(tb, ctx.Err(), "the stop came to no end: %v", err)
	require.NoError(tb, e.Check())
	return err
}

// pass lets time pass, and then everything happen that is due.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func requireState(tb testing.TB, e *lifecycle.Engine, name string, want startup.State) {
	tb.Helper()
	state, ok := e.State(name)
	require.True(tb, ok, name)
	require.Equal(tb, want.String(), state.String(), name)
}

// ending returns a component whose run ends with an error after some time, as often as it is started.
func (j *journal) ending(name string, after time.Duration, restart startup.Restart, needs ...string) component {
	c := j.component(name, 0, needs...)
	c.Restart = &restart
	c.Start = func(_ context.Context, run *startup.Run) error {
		j.note("+%s", name)
		run.Go(func(ctx context.Context) error {
			if sleep(ctx, after) == nil {
				return errBroken
			}
			return nil
		})
		return nil
	}
	return c
}

// handle is a registration that notes what becomes of it.
type handle struct {
	journal *journal
	name    string
	takes   time.Duration
	proven  time.Duration // until calls can be given to it
	err     error
}

func (h handle) Unregister(ctx context.Context) error {
	h.journal.note("unregister %s", h.name)
	return errors.Join(sleep(ctx, h.takes), h.err)
}

func (h handle) AwaitEligible(ctx context.Context) error { return sleep(ctx, h.proven) }

func (h handle) Withdraw() { h.journal.note("withdraw %s", h.name) }

// registering returns a callback that registers a handle after some time, and notes that.
func (j *journal) registering(h handle, takes time.Duration, err error) func(context.Context) (lifecycle.Handle, error) {
	h.journal = j
	return func(context.Context) (lifecycle.Handle, error) {
		time.Sleep(takes)
		if err != nil {
			return nil, err
		}
		j.note("register %s", h.name)
		return h, nil
	}
}

// exits ends its goroutine.
func exits() error {
	runtime.Goexit()
	return nil
}
