package lifecycle

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/startup"
)

// The order of stopping is not planned. Each run of a component counts as a user of the runs that it was started with
// ([node.use]), and a component stops when its last user is down ([Engine.releaseUses]): so those nothing uses stop
// first, and those that everything needs stop last.

var errStopping = fmt.Errorf("all components are being stopped: %w", fault.ErrClosed)

// rollback ends the start in progress and stops everything. Components that have not started are skipped for the reason.
func (e *Engine) rollback(err error, reason string) {
	if e.err == nil {
		e.err = err
	}
	e.wall, e.rolledBack = e.now-e.began, true
	e.stopAll(reason)
}

// stopAll begins to stop everything. The reason is that of components which have not started, or are to start again.
func (e *Engine) stopAll(reason string) {
	e.phase = phaseStopping
	if e.onStop != nil {
		e.onStop()
	}
	e.turns.nodes = nil
	close(e.halt)
	go e.startContexts.Cancel(startError([]error{fault.ErrClosed}))
	for _, n := range e.nodes {
		switch {
		case !n.stage.live() && n.isOpen():
			e.skip(n, cause{errStopping, reason})
		case n.stage.launching() && n.calls > 0: // its context has ended
			n.deadline = min(n.deadline, e.now+n.c.StopTimeout)
			e.arm(n.deadline + tasks.Grace)
		default:
			e.stopIfUnused(n)
		}
	}
}

// skip takes a node that is not live out of the start, or cancels its restart.
func (e *Engine) skip(n *node, c cause) {
	n.cancelTimer()
	if n.wasReady {
		e.enter(n, down, toStop)
		return
	}
	n.setCause(c)
	e.enter(n, down, toSkip)
}

// stoppable reports whether the stop of a node can begin: it is live, no code of it runs, and the stop has not begun.
func (n *node) stoppable() bool { return n.stage.live() && n.stage != stopping && n.calls == 0 }

// stopIfUnused begins to stop a node that no other uses, when everything is being stopped.
func (e *Engine) stopIfUnused(n *node) {
	if n.stoppable() && n.users == 0 {
		e.stop(n)
	}
}

// stopWhenUnused begins to stop a node; when everything is being stopped, after those that use it. These are there
// where it was restarting.
func (e *Engine) stopWhenUnused(n *node) {
	if !e.ending() || n.users == 0 {
		e.stop(n)
	}
}

// stop begins to stop a node. One that is to restart keeps that goal: endStop decides whether it still does.
func (e *Engine) stop(n *node) {
	g := n.goal
	if g == toServe {
		g = toStop
	}
	e.beginStop(n, g)
}

// beginStop begins the stop of a node, after which it becomes what the goal says.
func (e *Engine) beginStop(n *node, g goal) {
	if g == toStop || g == toFollow {
		n.setCause(cause{})
	}
	n.calls++
	n.cancelTimer()
	e.enter(n, stopping, g)
	n.since, n.deadline = e.now, e.now+n.c.StopTimeout
	e.arm(n.deadline + tasks.Grace)
	go e.runStop(n, e.epoch.Add(n.deadline))
}

// runStop runs the stop of a node. It takes mu.
func (e *Engine) runStop(n *node, deadline time.Time) {
	ctx := attemptctx.New(e.values, deadline, &e.stopContexts, nil)
	e.callStop(ctx, n, func(err error) {
		ctx.End()
		e.lock()
		defer e.mu.Unlock()
		n.calls--
		if err != nil || n.extras != nil {
			n.more().stopErr = err
		}
		switch n.stage { //nolint:exhaustive // a stop runs in these only
		case stopping:
			e.endStop(n, n.goal)
		case stuckStop:
			e.enter(n, down, toStop)
		}
		e.commit()
	})
}

// callStop undoes a run: what it registered is unregistered, its run context ends, its Stop is called, and its
// goroutines are waited for. done has the errors, also when code of the component exits its goroutine. It takes
// mu.
func (e *Engine) callStop(ctx *attemptctx.Context, n *node, done func(error)) {
	e.mu.Lock()
	var handles []Handle
	var endRunContext context.CancelCauseFunc
	started, stopCancelled, crashed := n.started, false, false
	if x := n.extras; x != nil {
		handles, endRunContext, x.handles = x.handles, x.endRunContext, nil
		stopCancelled, x.stopContext, crashed = x.stopCancelled, ctx, x.crashed && n.restarts()
	}
	e.mu.Unlock()
	if stopCancelled {
		ctx.End()
	}
	var errs []error
	if crashed {
		withdraw(handles)
		handles = nil
	}
	for _, handle := range slices.Backward(handles) {
		errs = append(errs, fault.List(fault.Run(func() error { return handle.Unregister(ctx) }))...)
	}
	if endRunContext != nil {
		endRunContext(n.endOfRun())
	}
	fault.RunThen(func() error {
		if n.c.Stop == nil || !started {
			return nil
		}
		return n.c.Stop(ctx)
	}, func(err error) {
		errs = append(errs, fault.List(err)...)
		errs = append(errs, fault.List(e.awaitWorkers(ctx, n))...)
		if len(errs) == 0 {
			done(nil)
			return
		}
		done(fault.Join("", errs))
	})
}

// endOfRun returns the cause with which the context of a run ends.
func (n *node) endOfRun() error {
	return fmt.Errorf("registry: component %q: %w", n.c.Name, fault.ErrClosed)
}

// unregister unregisters what a component has registered, outside of a stop. It takes no lock.
func (e *Engine) unregister(n *node, handles []Handle) {
	ctx, cancel := context.WithTimeout(e.values, n.c.StopTimeout)
	defer cancel()
	for _, handle := range slices.Backward(handles) {
		_ = fault.Run(func() error { return handle.Unregister(ctx) }) // a registry that closes names what is stuck
	}
}

// awaitWorkers waits for the goroutines of a run, a part of the grace longer than ctx. It takes mu.
func (e *Engine) awaitWorkers(ctx context.Context, n *node) error {
	e.mu.Lock()
	x := n.extras
	if x == nil || x.workers == 0 {
		e.mu.Unlock()
		return nil
	}
	if x.idle == nil {
		x.idle = make(chan struct{})
	}
	idle := x.idle
	e.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
	}
	select { // they heed the same end
	case <-idle:
		return nil
	case <-time.After(tasks.Grace / 2):
		return fmt.Errorf("a goroutine of its run: %w", fault.ErrStuck)
	}
}

// endStop takes a node down when its stop is over, or when its Start failed and left nothing behind. A node that
// was to restart does so, unless everything stops, it was removed, or code of its last run has not returned.
func (e *Engine) endStop(n *node, g goal) {
	switch {
	case !g.restarts():
		e.enter(n, down, g)
	case e.ending() || n.removed:
		e.enter(n, down, toStop)
	case n.unrepeatable().err != nil:
		n.setCause(n.unrepeatable())
		e.enter(n, down, toFail)
	case n.calls > 0:
		e.markStuck(n, stuckStop, "code of its last run does not return")
	default:
		e.enter(n, down, g)
		e.scheduleRestart(n)
	}
	e.releaseNeeds(n)
}

// markStuck counts a node as down although its code does not return.
func (e *Engine) markStuck(n *node, s stage, text string) {
	x := n.more()
	x.cause.text = text
	if x.cause.err == nil {
		x.cause.err = fault.Wrap(text+": ", fault.ErrStuck)
	}
	e.enter(n, s, toFail)
}

// releaseUses releases what a node has used, and stops what waited for that.
func (e *Engine) releaseUses(n *node) {
	for _, used := range n.uses {
		used.users--
		switch {
		case used.users > 0:
		case !used.stage.live():
			e.releaseUses(used)
		case e.phase == phaseStopping:
			e.stopIfUnused(used)
		}
	}
	n.uses = n.uses[:0]
}

// releaseNeeds releases what a node that is down has used, and what waited for it. What uses a node that is to restart
// stops before what that one has used: so it keeps that until its next start.
func (e *Engine) releaseNeeds(n *node) {
	if n.users == 0 || n.stage != down {
		e.releaseUses(n)
	}
	x := n.extras
	if x == nil {
		return
	}
	for _, blocked := range x.blocks {
		blocked.extras.blockers--
		e.stopIfUnblocked(blocked)
	}
	x.blocks = nil
	if x.down != nil {
		close(x.down)
		x.down = nil
	}
}

// scheduleRestart lets a node that is down start again after its delay, less a jitter of up to a fifth.
func (e *Engine) scheduleRestart(n *node) {
	x, run := n.more(), n.run
	x.restarts++
	pause := x.delay
	if pause > 0 {
		pause -= rand.N(pause/5 + 1) //nolint:gosec // jitter
	}
	x.timer = e.timers.After(pause, func() { go e.restart(n, run) })
}

// restart lets a node wait for its needs again. It takes mu.
func (e *Engine) restart(n *node, run int32) {
	e.lock()
	defer e.mu.Unlock()
	if n.run == run && n.state() == startup.Restarting && n.stage == down && !e.ending() && !n.removed {
		e.wait([]*node{n})
		e.commit()
	}
}
