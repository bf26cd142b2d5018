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
	"github.com/capreg/registry/startup"
)

func TestSignalStopsARunAndASecondOneEndsTheStop(t *testing.T) {
	started, stopping := make(chan struct{}), make(chan struct{})
	o := orchestrate(t, startup.Options{}, registry.Component{
		Name:  "a",
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
	require.Less(t, time.Since(began), 5*time.Second, "rather than the ten of the stop timeout")
}
