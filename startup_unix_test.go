//go:build unix

package registry_test

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
)

func TestRun_SignalStopsAndSecondEndsStop(t *testing.T) {
	started, stopping := make(chan struct{}), make(chan struct{})
	o := testkit.Orchestrate(t, startup.Options{}, registry.Component{
		Name: "a", StopTimeout: time.Minute,
		Start: func(context.Context, *startup.Run) error { close(started); return nil },
		Stop: func(ctx context.Context) error {
			close(stopping)
			<-ctx.Done()
			return ctx.Err()
		},
	})
	done := make(chan error, 1)
	go func() { done <- o.Run(t.Context(), syscall.SIGUSR1) }()
	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	<-started
	require.NoError(t, self.Signal(syscall.SIGUSR1))
	<-stopping
	began := time.Now()
	require.NoError(t, self.Signal(syscall.SIGUSR1))
	require.ErrorIs(t, <-done, context.Canceled, "of the stop, or of the start where the first one came early")
	require.Less(t, time.Since(began), 30*time.Second, "rather than the minute of the stop timeout")
}

func TestRun_SignalAtEndOfStartIsHandled(t *testing.T) {
	for i := range 100 {
		o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a", Start: func(context.Context, *startup.Run) error {
			_ = syscall.Kill(syscall.Getpid(), syscall.SIGUSR1)
			time.Sleep(time.Duration(i%100) * time.Microsecond)
			return nil
		}})
		done := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer close(done)
			_ = o.Run(ctx, syscall.SIGUSR1)
		}()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Errorf("run %d: the signal was lost; a is %s", i, testkit.StateOf(t, o, "a"))
			cancel()
			<-done
		}
		cancel()
		if t.Failed() {
			return
		}
	}
}

func TestRun_SecondSignalEndsRollback(t *testing.T) {
	stopping := make(chan struct{})
	o := testkit.Orchestrate(t, startup.Options{}, registry.Component{Name: "a", Provides: []string{"a"}, StopTimeout: time.Minute, Stop: func(ctx context.Context) error {
		close(stopping)
		<-ctx.Done()
		return nil
	}}, registry.Component{Name: "b", Needs: startup.Capabilities("a"), Start: func(ctx context.Context, _ *startup.Run) error {
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGUSR1)
		<-ctx.Done()
		return ctx.Err()
	}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = o.Run(t.Context(), syscall.SIGUSR1)
	}()
	<-stopping
	began := time.Now()
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGUSR1)
	<-done
	require.Less(t, time.Since(began), 30*time.Second, "the second signal ends the stop")
}
