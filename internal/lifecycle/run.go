package lifecycle

import (
	"context"
	"errors"
	"os"
	"os/signal"

	"github.com/capreg/registry/internal/fault"
)

var errSignal = errors.New("stopped by a signal")

// Run starts the components, waits until ctx ends, a signal arrives, a stop begins or a critical component has
// failed, and stops them. A second signal ends the contexts of the stop.
func (e *Engine) Run(ctx context.Context, signals ...os.Signal) error {
	arrived := make(chan os.Signal, 2)
	if len(signals) > 0 {
		signal.Notify(arrived, signals...)
		defer signal.Stop(arrived)
	}
	interrupted, err := e.startUntilSignal(ctx, arrived)
	if err != nil {
		return err
	}
	var cause error
	if !interrupted {
		cause = e.waitUntilEnd(ctx, arrived)
	}
	return errors.Join(append(fault.List(cause), fault.List(e.stopUntilSignal(ctx, arrived))...)...)
}

// startUntilSignal starts the components; a first signal aborts that and a second one hurries the rollback. It
// reports whether a signal has arrived, which may be too late for the start to fail.
func (e *Engine) startUntilSignal(ctx context.Context, arrived <-chan os.Signal) (interrupted bool, err error) {
	starting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	started := make(chan error, 1)
	go func() {
		_, err := e.Start(starting)
		started <- err
	}()
	select {
	case err = <-started:
		return false, err
	case <-arrived:
		cancel(errSignal)
	}
	select {
	case err = <-started:
	case <-arrived:
		e.stopContexts.Cancel(stopError([]error{context.Canceled, errSignal}))
		err = <-started
	}
	return true, err
}

// waitUntilEnd waits for the end of a run, and returns the error of the component that failed, if any. It
// takes mu.
func (e *Engine) waitUntilEnd(ctx context.Context, arrived <-chan os.Signal) error {
	select {
	case <-ctx.Done():
	case <-arrived:
	case <-e.halt:
	case <-e.failed:
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.err
	}
	return nil
}

// stopUntilSignal stops the components; a signal ends the contexts of that.
func (e *Engine) stopUntilSignal(ctx context.Context, arrived <-chan os.Signal) error {
	stopping, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-arrived:
			cancel(errSignal)
		case <-over:
		}
	}()
	return e.Stop(stopping)
}
