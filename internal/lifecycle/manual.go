package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/startup"
)

// Restart stops a component and starts it again, with its dependants where its policy says so, and returns when that
// start is decided; one that is down is started. It counts for no limit of the policy. When ctx ends first, the restart
// goes on.
func (e *Engine) Restart(ctx context.Context, name string) error {
	e.lock()
	n, err := e.restartable(name)
	if err != nil {
		e.mu.Unlock()
		return err
	}
	x := n.more()
	x.intensity, x.delay, x.startBy, x.unrepeatable = 0, 0, 0, cause{}
	switch n.stage { //nolint:exhaustive // elsewhere it starts anyway
	case running:
		n.setCause(cause{})
		e.enter(n, draining, toRestart)
		if n.c.Restart.Dependants {
			e.stopDependants(n)
		}
		e.stopIfUnblocked(n)
	case down:
		n.cancelTimer()
		e.wait([]*node{n})
	}
	decided := x.decided
	if decided == nil && n.isOpen() {
		decided = make(chan struct{})
		x.decided = decided
	}
	e.commit()
	e.mu.Unlock()
	if decided != nil {
		select {
		case <-decided:
		case <-ctx.Done():
			return fault.Join(fmt.Sprintf("registry: restart of component %q: ", n.c.Name), fault.OfContext(ctx))
		}
	}
	return e.restartError(n)
}

// restartable returns the node of a name, or why it cannot be restarted.
func (e *Engine) restartable(name string) (*node, error) {
	n, ok := e.named(name)
	switch {
	case !ok:
		return nil, fmt.Errorf("registry: component %q: %w", oneline.Cut(name, maxName), fault.ErrNotRegistered)
	case e.phase != phaseRunning || n.removed:
		return nil, fmt.Errorf("registry: component %q cannot be restarted before all have started, or while they stop: %w", oneline.Cut(name, maxName), fault.ErrState)
	case n.state() == startup.Stuck || n.calls > 0 && !n.isOpen():
		return nil, fmt.Errorf("registry: component %q: its code does not return: %w", oneline.Cut(name, maxName), fault.ErrStuck)
	}
	return n, nil
}

// restartError returns why a component is not ready after a restart. It takes mu.
func (e *Engine) restartError(n *node) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n.stage == running && n.goal == toServe {
		return nil
	}
	err := n.because().err
	if err == nil {
		err = errors.New(oneline.Cut(fmt.Sprintf("it is %v: %s", n.state(), n.because().text), maxCauseText))
	}
	return fault.Wrap(fmt.Sprintf("registry: restart of component %q: ", n.c.Name), err)
}
