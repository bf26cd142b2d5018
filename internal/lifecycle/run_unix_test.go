//go:build unix

package lifecycle_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/startup"
)

// These tests send signals to the process: they run one after another.

func TestRun_SecondSignalEndsTheStop(t *testing.T) { //nolint:paralleltest // see above
	started, stopping := make(chan struct{}), make(chan struct{})
	e := build(t, startup.Options{}, component{
		Name: "a", StopTimeout: time.Minute, Notifies: true,
		Start: func(_ context.Context, run *startup.Run) error { run.Ready(); close(started); return nil },
		Stop:  func(ctx context.Context) error { close(stopping); <-ctx.Done(); return ctx.Err() },
	})
	done := make(chan error, 1)
	go func() { done <- e.Run(t.Context(), syscall.SIGUSR1) }()
	<-started
	for state, _ := e.State("a"); state != startup.Ready; state, _ = e.State("a") {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond) // Run waits for its end now; if not, the test is as good
	require.NoError(t, syscall.Kill(syscall.Getpid(), syscall.SIGUSR1))
	<-stopping
	began := time.Now()
	require.NoError(t, syscall.Kill(syscall.Getpid(), syscall.SIGUSR1))
	require.ErrorIs(t, <-done, context.Canceled)
	require.Less(t, time.Since(began), 30*time.Second)
}

func TestRun_SecondSignalEndsARollback(t *testing.T) { //nolint:paralleltest // see above
	stopping := make(chan struct{})
	e := build(t, startup.Options{},
		component{Name: "a", Provides: []string{"a"}, StopTimeout: time.Minute, Stop: func(ctx context.Context) error {
			close(stopping)
			<-ctx.Done()
			return nil
		}},
		component{Name: "b", Needs: startup.Capabilities("a"), Start: func(ctx context.Context, _ *startup.Run) error {
			_ = syscall.Kill(syscall.Getpid(), syscall.SIGUSR1)
			<-ctx.Done()
			return ctx.Err()
		}})
	done := make(chan error, 1)
	go func() { done <- e.Run(t.Context(), syscall.SIGUSR1) }()
	<-stopping
	began := time.Now()
	require.NoError(t, syscall.Kill(syscall.Getpid(), syscall.SIGUSR1))
	require.ErrorContains(t, <-done, "stopped by a signal")
	require.Less(t, time.Since(began), 30*time.Second)
}
