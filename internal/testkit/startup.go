package testkit

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/startup"
)

// Journal records what happens, in order.
type Journal struct {
	mu    sync.Mutex
	lines []string
}

// Note records a line.
func (j *Journal) Note(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

// All returns the lines recorded so far.
func (j *Journal) All() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// Component returns a component that takes some time to start, records its starts and stops, and needs the
// given capabilities. It provides a capability of its own name.
func (j *Journal) Component(name string, takes time.Duration, needs ...string) registry.Component {
	return registry.Component{
		Name: name, Provides: []string{name}, Needs: startup.Capabilities(needs...),
		Start: func(ctx context.Context, _ *startup.Run) error {
			j.Note("+" + name)
			select {
			case <-time.After(takes):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		Stop: func(context.Context) error {
			j.Note("-" + name)
			return nil
		},
	}
}

// Crashing returns a component whose run fails some time after each start.
func Crashing(starts *atomic.Int32, after time.Duration, restart startup.Restart) registry.Component {
	return registry.Component{Name: "crashing", Provides: []string{"crashing"}, Restart: restart, Start: func(_ context.Context, run *startup.Run) error {
		starts.Add(1)
		run.Go(func(ctx context.Context) error {
			select {
			case <-time.After(after):
				return ErrDown
			case <-ctx.Done():
				return nil
			}
		})
		return nil
	}}
}

// Orchestrate returns an orchestrator of components without a registry.
func Orchestrate(tb testing.TB, options startup.Options, components ...registry.Component) *registry.Orchestrator {
	tb.Helper()
	o, err := registry.NewOrchestrator(nil, options, components...)
	require.NoError(tb, err)
	return o
}

// StateOf returns the state of a component.
func StateOf(tb testing.TB, o *registry.Orchestrator, name string) string {
	tb.Helper()
	state, ok := o.State(name)
	require.True(tb, ok, name)
	return state.String()
}

// StartAsync starts in a goroutine and returns the error of the start to come.
func StartAsync(tb testing.TB, o *registry.Orchestrator) <-chan error {
	tb.Helper()
	done := make(chan error, 1)
	go func() { _, err := o.Start(tb.Context()); done <- err }()
	return done
}

// StopInTime stops, and fails the test when the stop ends only with its context.
func StopInTime(tb testing.TB, o *registry.Orchestrator) error {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 240*time.Hour)
	defer cancel()
	began := time.Now()
	err := o.Stop(ctx)
	require.Less(tb, time.Since(began), time.Hour, "the stop came to no end: %v", err)
	return err
}
