package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/startup"
)

// abort ends the start in progress.
func (o *Orchestrator) abort(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.phase == phaseStarting {
		o.gaveUp = true
		o.abortLocked(err)
	}
}

// abortLocked ends the start in progress. Caller holds mu.
func (o *Orchestrator) abortLocked(err error) {
	if o.err == nil {
		o.err = err
	}
	o.wall, o.rolledBack = o.now()-o.began, true
	o.stopAll()
}

// stopAll begins to stop everything. Caller holds mu.
func (o *Orchestrator) stopAll() {
	o.phase = phaseStopping
	o.waiting.nodes = nil
	close(o.halt)
	go o.starts.Cancel(fault.Join("registry: start: ", []error{ErrClosed}))
	for _, n := range o.nodes {
		switch {
		case !n.up && n.undecided:
			o.leaveOut(n, errStopping, errStopping.Error())
		case n.state == startup.Starting && n.calls > 0: // it has been told
			n.deadline = min(n.deadline, o.now()+n.c.StopTimeout)
			o.arm(n.deadline + tasks.Grace)
		case n.stoppable():
			o.settle(n)
			o.stopping(n)
		}
	}
	o.checkStopped()
}

var errStopping = fmt.Errorf("everything is being stopped: %w", ErrClosed)

// leaveOut decides that a node that is not up is not started, or not again. Caller
// holds mu.
func (o *Orchestrator) leaveOut(n *node, err error, reason string) {
	n.again = false
	n.stopTimer()
	if n.state == startup.Failed || n.state == startup.Stuck {
		o.settle(n)
		return
	}
	if n.state = startup.Stopped; !n.wasReady {
		n.state, n.err, n.reason = startup.Skipped, err, reason
	}
	o.settle(n)
	o.emit(n, 0)
}

// stopTimer stops what the node waits for by itself. Caller holds mu.
func (n *node) stopTimer() {
	if x := n.extras; x != nil && x.timer != nil {
		x.timer.Stop()
		x.timer = nil
	}
}

// stoppable reports whether the node is up, nobody uses it, and its stop can begin.
// Caller holds mu.
func (n *node) stoppable() bool {
	return n.up && n.holders == 0 && n.calls == 0 && !n.stopBegun
}

// checkStopped ends the stop when everything is down. Caller holds mu.
func (o *Orchestrator) checkStopped() {
	if o.phase != phaseStopping || o.up > 0 {
		return
	}
	o.phase = phaseStopped
	o.emitWhole(startup.Stopped, 0, "")
	close(o.stopped)
	select {
	case <-o.settled:
	default:
		close(o.settled) // the start was aborted
	}
}

// release gives back what a node that is down has used, and lets those go down that
// waited for it. Caller holds mu.
func (o *Orchestrator) release(n *node) {
	if !n.up {
		return
	}
	n.up = false
	o.up--
	for _, used := range n.uses {
		used.holders--
		if o.phase == phaseStopping && used.stoppable() {
			o.settle(used)
			o.stopping(used)
		}
	}
	n.uses = n.uses[:0]
	if x := n.extras; x != nil {
		for _, blocked := range x.blocks {
			blocked.extras.blockers--
			o.bringDown(blocked)
		}
		x.blocks = nil
		if x.down != nil {
			close(x.down)
			x.down = nil
		}
	}
	o.downed(n)
	o.checkStopped()
}

// downed decides what follows for a node that is down. Caller holds mu.
func (o *Orchestrator) downed(n *node) {
	again := n.again && !o.ending() && !n.unwanted
	n.again = false
	switch {
	case n.state == startup.Failed || n.state == startup.Stuck:
	case again && n.abandoned() != nil:
		n.state, n.err, n.reason = startup.Failed, n.extras.abandoned, n.extras.abandonedText
		o.emit(n, o.now()-n.entered)
		o.settle(n)
		o.spread(n)
	case !again:
		n.state = startup.Stopped
		o.emit(n, o.now()-n.entered)
		if n.undecided {
			o.settle(n)
			o.spread(n)
		}
	case n.calls > 0: // it must not run twice
		o.stuck(n, "a function of its last start does not return")
	default:
		x := n.more()
		x.restarts++
		if n.state != startup.Restarting {
			n.state = startup.Restarting
			o.emit(n, o.now()-n.entered)
		}
		pause, generation := x.delay, n.generation
		if pause > 0 {
			pause -= rand.N(pause/5 + 1) //nolint:gosec // jitter
		}
		x.timer = o.schedule.After(pause, func() { go o.startAgain(n, generation) })
	}
}

// stuck gives a node up that does not return. Caller holds mu.
func (o *Orchestrator) stuck(n *node, reason string) {
	n.again = false
	n.state, n.reason = startup.Stuck, reason
	if n.err == nil {
		n.err = fault.Wrap(reason+": ", ErrStuck)
	}
	o.emit(n, o.now()-n.entered)
	if n.undecided {
		o.settle(n)
		o.spread(n)
	}
}

// startAgain lets a node wait for its needs after the pause before a restart.
func (o *Orchestrator) startAgain(n *node, generation int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n.generation == generation && n.state == startup.Restarting && !n.up && !o.ending() && !n.unwanted {
		o.queueAll([]*node{n})
	}
}

// stopping enters the stop of a node. Caller holds mu.
func (o *Orchestrator) stopping(n *node) {
	told := n.state == startup.Failed || n.state == startup.Restarting
	if !told {
		n.state, n.err, n.reason = startup.Stopping, nil, ""
	}
	n.generation++
	n.stopBegun = true
	n.entered = o.now()
	n.deadline = n.entered + n.c.StopTimeout
	n.calls++
	n.stopTimer()
	if !told {
		o.emit(n, 0)
	}
	o.arm(n.deadline + tasks.Grace)
	go o.stop(n, n.generation, o.epoch.Add(n.deadline))
}

// stop stops a component: what it registered leaves, its run context ends, its Stop
// is called, and the goroutines of its run end.
func (o *Orchestrator) stop(n *node, generation int, deadline time.Time) {
	ctx := attemptctx.New(o.values, deadline, &o.stops, nil)
	o.takeApart(ctx, n, func(err error) {
		ctx.End()
		o.mu.Lock()
		defer o.mu.Unlock()
		n.calls--
		n.keepStopErr(err)
		if n.generation != generation {
			return
		}
		if n.up {
			o.release(n)
		} else if n.state == startup.Stuck { // it was given up, and has come to its end after all
			n.state = startup.Stopped
			o.emit(n, o.now()-n.entered)
		}
	})
}

// takeApart ends what a start has begun, and then tells how that went, also when the
// code of the component exits its goroutine.
func (o *Orchestrator) takeApart(ctx *attemptctx.Context, n *node, then func(error)) {
	var errs []error
	hurried := false
	o.mu.Lock()
	var registrations []*Registration
	var end context.CancelCauseFunc
	accepted := n.accepted
	if x := n.extras; x != nil {
		registrations, end, x.registrations = x.registrations, x.endLife, nil
		hurried, x.undoing = x.hurried, ctx
	}
	o.mu.Unlock()
	if hurried {
		ctx.End()
	}
	for _, r := range slices.Backward(registrations) {
		errs = append(errs, fault.List(fault.Run(func() error { return r.Unregister(ctx) }))...)
	}
	if end != nil {
		end(n.over())
	}
	o.user(func() error {
		if n.c.Stop == nil || !accepted {
			return nil
		}
		return n.c.Stop(ctx)
	}, func(err error) {
		errs = append(errs, fault.List(err)...)
		if !o.awaitWorkers(ctx, n) {
			errs = append(errs, fmt.Errorf("a goroutine of its run: %w", ErrStuck))
		}
		if len(errs) == 0 {
			then(nil)
			return
		}
		then(fault.Join("", errs))
	})
}

// over is why the context of the node's run ends.
func (n *node) over() error { return fmt.Errorf("registry: component %q: %w", n.c.Name, ErrClosed) }

// withdraw takes out what a component has registered.
func (o *Orchestrator) withdraw(n *node, registrations []*Registration) {
	ctx, cancel := context.WithTimeout(o.values, n.c.StopTimeout)
	defer cancel()
	for _, r := range slices.Backward(registrations) {
		_ = fault.Run(func() error { return r.Unregister(ctx) }) // what is stuck is named when the registry closes
	}
}

// awaitWorkers waits for the goroutines of the component's run; false when they have
// not ended within ctx.
func (o *Orchestrator) awaitWorkers(ctx context.Context, n *node) bool {
	o.mu.Lock()
	x := n.extras
	if x == nil || x.workers == 0 {
		o.mu.Unlock()
		return true
	}
	if x.idle == nil {
		x.idle = make(chan struct{})
	}
	idle := x.idle
	o.mu.Unlock()
	select {
	case <-idle:
		return true
	case <-ctx.Done():
	}
	select { // they heed the same end
	case <-idle:
		return true
	case <-time.After(tasks.Grace / 2):
		return false
	}
}

// arm makes sure that deadlines are looked at then, if not before. One timer serves
// them all: contexts end by themselves, and this is for those that do not heed
// them, or that are waited for without a function that runs. Caller holds mu.
func (o *Orchestrator) arm(at time.Duration) {
	if o.sweeper != nil {
		if o.sweepAt <= at {
			return
		}
		o.sweeper.Stop()
	}
	o.sweepAt = at
	o.sweeper = o.schedule.After(max(at-o.now(), time.Millisecond), func() { go o.sweep() })
}

// armAll does so for what there is. Caller holds mu.
func (o *Orchestrator) armAll() {
	now := o.now()
	for _, n := range o.nodes {
		if at, ok := n.due(); ok {
			o.arm(at)
		} else if n.state == startup.Waiting && n.undecided {
			o.arm(now + n.c.StartTimeout) // not before it has begun
		}
	}
}

// due returns when the node is to be looked at: at its deadline, or a grace later
// while code of its runs that should heed it.
func (n *node) due() (at time.Duration, ok bool) {
	switch {
	case n.state == startup.Starting && n.calls == 0:
		return n.deadline, true
	case n.up && n.calls > 0 && n.state != startup.Ready:
		return n.deadline + tasks.Grace, true
	}
	return 0, false
}

// sweep gives up on what takes too long.
func (o *Orchestrator) sweep() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sweeper = nil
	for _, n := range o.nodes {
		at, ok := n.due()
		switch {
		case !ok || o.now() < at:
		case n.state == startup.Starting:
			o.tooLong(n)
		case !n.stopBegun: // its probe, or what registers it, does not return
			o.stopping(n)
		default:
			n.state = startup.Stopping // whatever it was: now it is stuck
			o.stuck(n, "its stop does not return")
			o.release(n)
		}
	}
	o.armAll()
}

// tooLong ends a start whose time is over. Caller holds mu.
func (o *Orchestrator) tooLong(n *node) {
	err := fmt.Errorf("%w within %v", ErrNotReady, n.c.StartTimeout)
	text := err.Error()
	x := n.extras
	switch {
	case x != nil && x.ended != nil:
		err, text = x.ended, x.endedText
	case n.err != nil:
		err, text = fault.Join("", []error{err, n.err}), oneline.Cut(text+": "+n.reason, 300)
	}
	if n.accepted {
		o.failStarted(n, err, text)
		return
	}
	n.generation++ // what it returns is late
	n.own.EndAside()
	o.active--
	n.err = err
	if x != nil && x.endLife != nil {
		go x.endLife(n.over()) // what it began before it hung is told to end
	}
	o.stuck(n, text+"; its start does not return")
	o.release(n)
}

// takeDown begins to stop a node for good, and returns a channel that is closed when it
// is down; nil when it is. Caller holds mu.
func (o *Orchestrator) takeDown(n *node) <-chan struct{} {
	n.unwanted, n.again = true, false
	if !n.up {
		if n.undecided {
			o.leaveOut(n, nil, "it was removed")
			o.spread(n)
		}
		return nil
	}
	x := n.more()
	if x.down == nil {
		x.down = make(chan struct{})
	}
	down := x.down
	switch {
	case n.state == startup.Starting && n.calls > 0:
		o.recallStart(n, errRemoved, errRemoved.Error())
	case n.state == startup.Starting:
		o.stopStarted(n)
	case n.calls == 0 && !n.stopBegun:
		o.settle(n)
		o.stopping(n)
	}
	return down
}

// hurry ends the context of the stop of a node, also when that has not begun.
func (o *Orchestrator) hurry(n *node) {
	o.mu.Lock()
	x := n.more()
	x.hurried = true
	undoing := x.undoing
	o.mu.Unlock()
	if undoing != nil {
		undoing.End()
	}
}

var errRemoved = errors.New("it is being removed")

// recallStart tells the start of a node to end. Caller holds mu.
func (o *Orchestrator) recallStart(n *node, err error, text string) {
	x := n.more()
	x.ended, x.endedText = err, text
	n.own.EndAside()
	if n.accepted && n.calls == 0 {
		o.failStarted(n, err, x.endedText)
		return
	}
	n.deadline = min(n.deadline, o.now())
	o.arm(n.deadline + tasks.Grace)
}

// giveUp ends the starts of the given nodes.
func (o *Orchestrator) giveUp(nodes []*node, err error) {
	text := oneline.Cut(fault.Text(err), 300) // a user's method: outside the lock
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range nodes {
		switch {
		case !n.undecided || n.wasReady:
		case !n.up:
			o.leaveOut(n, err, text)
			o.decide(n, o.now())
		case n.state == startup.Restarting: // with what it needs
			n.abandon(err, text)
		case n.state == startup.Starting:
			n.abandon(err, text)
			o.recallStart(n, err, text)
		}
	}
}

// keep keeps components that were added, or undoes that where one of them failed.
func (o *Orchestrator) keep(added []*node) error {
	o.mu.Lock()
	var errs []error
	for _, n := range added {
		if !n.wasReady && !n.c.NonCritical {
			cause := n.err
			if cause == nil {
				cause = errors.New(n.reason)
			}
			errs = append(errs, fault.Wrap(fmt.Sprintf("start of component %q: ", n.c.Name), cause))
		}
	}
	if len(errs) > 0 && o.ending() {
		errs = append([]error{errStopping}, errs...)
	}
	if len(errs) == 0 {
		o.mu.Unlock()
		return nil
	}
	leaving := notUsed(added)
	slices.SortStableFunc(leaving, func(a, b *node) int { return b.batch - a.batch })
	o.mu.Unlock()
	for _, n := range leaving { // users first
		o.mu.Lock()
		down := o.takeDown(n)
		o.mu.Unlock()
		if down != nil {
			<-down
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forget(slices.DeleteFunc(leaving, func(n *node) bool { return n.calls > 0 }))
	return fault.Join("registry: ", errs)
}

// notUsed returns those of the nodes that no other node needs, directly or not. Caller
// holds mu.
func notUsed(nodes []*node) []*node {
	leaving := make(map[*node]bool, len(nodes))
	for _, n := range nodes {
		leaving[n] = true
	}
	var used []*node
	for _, n := range nodes {
		if n.wasReady && slices.ContainsFunc(n.feeds, func(f feed) bool { return !leaving[f.node] && f.keeps() }) {
			used = append(used, n)
		}
	}
	for len(used) > 0 {
		n := used[len(used)-1]
		used = used[:len(used)-1]
		if !leaving[n] {
			continue
		}
		delete(leaving, n)
		for i := range n.needs {
			used = append(used, n.needs[i].members...)
		}
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return !leaving[n] })
}
