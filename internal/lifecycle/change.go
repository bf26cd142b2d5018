package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/tasks"
)

// maxName bounds the part of a name that an error quotes, in bytes.
const maxName = 64

// Add adds components, which are the engine's from then on. Before the start they join the plan. While others
// run they are started; when a critical one fails, all that were added are stopped and removed, but for those
// that others have come to use. ctx bounds their start.
func (e *Engine) Add(ctx context.Context, components []Component) error {
	ended := endOf(ctx)
	e.lock()
	if e.phase != phaseNew && e.phase != phaseRunning {
		e.mu.Unlock()
		return fmt.Errorf("registry: components cannot be added while others start or stop: %w", fault.ErrState)
	}
	added, err := e.addToPlan(components)
	if err == nil && len(ended) > 0 && e.phase == phaseRunning {
		e.removeFromPlan(added)
		err = startError(ended)
	}
	if err != nil || e.phase == phaseNew {
		e.mu.Unlock()
		return err
	}
	decided := make([]<-chan struct{}, len(added))
	for i, n := range added {
		n.more().decided = make(chan struct{})
		decided[i] = n.extras.decided
	}
	e.wait(added)
	e.commit()
	e.mu.Unlock()
	for _, one := range decided {
		select {
		case <-one:
		case <-ctx.Done():
			e.abortAdded(added, startError(fault.OfContext(ctx)))
			<-one
		}
	}
	if err := e.addError(added); err != nil {
		e.removeUnused(added)
		return err
	}
	return nil
}

// abortAdded aborts the first starts of nodes. It takes mu.
func (e *Engine) abortAdded(nodes []*node, err error) {
	c := causeOf(err) // a user's method: outside the lock
	e.lock()
	defer e.mu.Unlock()
	for _, n := range nodes {
		switch {
		case !n.isOpen() || n.wasReady:
		case !n.stage.live():
			e.skip(n, c)
		case n.stage.launching():
			n.more().unrepeatable = c
			e.abortStart(n, c)
		default: // it goes down with what it needs, and must not start again
			n.more().unrepeatable = c
		}
	}
	e.commit()
}

// addError returns why critical ones of the added nodes have not started. It takes mu.
func (e *Engine) addError(added []*node) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for _, n := range added {
		if n.wasReady || n.c.NonCritical {
			continue
		}
		err := n.because().err
		if err == nil {
			err = errors.New(n.because().text)
		}
		errs = append(errs, fault.Wrap(fmt.Sprintf("start of component %q: ", n.c.Name), err))
	}
	if len(errs) == 0 {
		return nil
	}
	if e.ending() {
		errs = append([]error{errStopping}, errs...)
	}
	return fault.Join("registry: ", errs)
}

// removeUnused stops and removes those of the nodes that no other node needs, users first. It takes mu.
func (e *Engine) removeUnused(nodes []*node) {
	e.mu.Lock()
	unused := unusedOf(nodes)
	slices.SortStableFunc(unused, func(a, b *node) int { return cmp.Compare(b.batch, a.batch) })
	e.mu.Unlock()
	for _, n := range unused {
		e.lock()
		isDown := e.remove(n)
		e.commit()
		e.mu.Unlock()
		<-isDown
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.removeFromPlan(slices.DeleteFunc(unused, func(n *node) bool { return n.calls > 0 }))
}

// unusedOf returns those of the nodes that no other node needs, directly or not.
func unusedOf(nodes []*node) []*node {
	unused := setOf(nodes)
	var used []*node
	for _, n := range nodes {
		isUsed := func(d dependant) bool { return !unused.has(d.node) && d.blocksRemoval() }
		if n.wasReady && slices.ContainsFunc(n.dependants, isUsed) {
			used = append(used, n)
		}
	}
	for len(used) > 0 {
		n := used[len(used)-1]
		used = used[:len(used)-1]
		if !unused.has(n) {
			continue
		}
		delete(unused, n)
		for i := range n.needs {
			used = append(used, n.needs[i].members...)
		}
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return !unused.has(n) })
}

// Remove stops a component and removes it from the plan. The error is an [InUseError] when others need it.
func (e *Engine) Remove(ctx context.Context, name string) error {
	e.lock()
	n, err := e.removable(name)
	if err != nil {
		e.mu.Unlock()
		return err
	}
	isDown := e.remove(n)
	e.commit()
	e.mu.Unlock()
	limit := tasks.WithGrace(ctx)
	defer limit.Stop()
	select {
	case <-isDown:
	case <-ctx.Done():
		e.cancelStop(n)
		select {
		case <-isDown:
		case <-limit.Over:
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if n.stage.live() || n.calls > 0 {
		return fmt.Errorf("registry: component %q: %w", oneline.Cut(name, maxName), fault.ErrStuck)
	}
	e.removeFromPlan([]*node{n})
	if n.stopErr() == nil {
		return nil
	}
	return fault.Wrap(fmt.Sprintf("registry: component %q: ", oneline.Cut(name, maxName)), n.stopErr())
}

// removable returns the node of a name, or why it cannot be removed.
func (e *Engine) removable(name string) (*node, error) {
	n, ok := e.named(name)
	if !ok {
		return nil, fmt.Errorf("registry: component %q: %w", oneline.Cut(name, maxName), fault.ErrNotRegistered)
	}
	var users []string
	for _, d := range n.dependants {
		if d.blocksRemoval() {
			users = append(users, d.node.c.Name)
		}
	}
	if len(users) > 0 {
		slices.Sort(users)
		return nil, &InUseError{Users: slices.Compact(users)}
	}
	if e.phase != phaseNew && e.phase != phaseRunning || n.isOpen() && !n.wasReady {
		const format = "registry: component %q cannot be removed while it starts, or while all components start or stop: %w"
		return nil, fmt.Errorf(format, oneline.Cut(name, maxName), fault.ErrState)
	}
	return n, nil
}

var errRemoved = errors.New("it is being removed")

// remove begins to stop a node for good. The channel is closed when it is down.
func (e *Engine) remove(n *node) <-chan struct{} {
	n.removed = true
	if !n.stage.live() {
		if n.isOpen() {
			e.skip(n, cause{text: "it was removed"})
		}
		isDown := make(chan struct{})
		close(isDown)
		return isDown
	}
	x := n.more()
	if x.down == nil {
		x.down = make(chan struct{})
	}
	isDown := x.down
	switch {
	case n.stage.launching() && n.calls > 0:
		e.abortStart(n, cause{errRemoved, errRemoved.Error()})
	case n.stoppable():
		n.ctx.EndAside()
		e.stop(n)
	}
	return isDown
}

// cancelStop ends the context of the stop of a node, also when that has not begun. It takes mu.
func (e *Engine) cancelStop(n *node) {
	e.mu.Lock()
	x := n.more()
	x.stopCancelled = true
	ctx := x.stopContext
	e.mu.Unlock()
	if ctx != nil {
		ctx.End()
	}
}
