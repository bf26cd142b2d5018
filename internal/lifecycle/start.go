package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/startup"
)

// componentRun is one run of a component, from the call of Start to the end of its stop: the context of its start, and
// what the component reports of itself.
type componentRun struct {
	attemptctx.Context

	engine *Engine
	node   *node
	run    startup.Run
	number int32
}

// maxRunsAtOnce bounds for how many runs memory is allocated at once: as long as one is in use, all are kept.
const maxRunsAtOnce = 32

// newRun returns memory for a run. A start of many components is the faster for each allocation less.
func (e *Engine) newRun() *componentRun {
	if len(e.runs) == 0 {
		e.runs = make([]componentRun, min(e.pendingTurns()+1, maxRunsAtOnce))
	}
	r := &e.runs[0]
	e.runs = e.runs[1:]
	return r
}

// begin begins the start of a node that has its turn.
func (e *Engine) begin(n *node) *componentRun {
	n.beginRun(e.now)
	n.use()
	parent := e.starter
	if e.phase != phaseStarting {
		parent = e.values
	}
	r := e.newRun()
	r.engine, r.node, r.run, r.number = e, n, *startup.NewRun(r), n.run
	r.Init(parent, e.epoch.Add(n.deadline), &e.startContexts)
	n.ctx = &r.Context
	e.arm(n.deadline)
	e.enter(n, starting, toServe)
	return r
}

// beginRun forgets the last run.
func (n *node) beginRun(now time.Duration) {
	if x := n.extras; x != nil {
		x.probes, x.pause, x.runContext, x.endRunContext, x.stopErr, x.crashed = 0, 0, nil, nil, nil, false
		x.aborted, x.late, x.detail = cause{}, false, ""
	}
	n.run++
	n.calls++
	n.notified, n.started, n.completed = false, false, false
	n.began, n.returned, n.ready = now, 0, 0
	n.since, n.deadline = now, now+n.c.StartTimeout
	if x := n.extras; x != nil && x.startBy > 0 && !n.wasReady {
		n.deadline = x.startBy
	}
}

// use notes what the node is started with. One of several that has come to need the node meanwhile is left out:
// in a stop they would wait for each other.
func (n *node) use() {
	for _, used := range n.uses { // kept from its last run
		used.users--
	}
	n.uses = n.uses[:0]
	var transitive nodeSet
	for i := range n.needs {
		need := &n.needs[i]
		if need.any && n.wasReady && transitive == nil {
			transitive = n.transitiveUsers()
		}
		for _, member := range need.members {
			if member.currentOutcome() == available && (!need.any || !transitive.has(member)) {
				member.users++
				n.uses = append(n.uses, member)
			}
		}
	}
}

// transitiveUsers returns the node, and those that use it or need it in any case, directly or not.
func (n *node) transitiveUsers() nodeSet {
	seen := setOf([]*node{n})
	for pending := []*node{n}; len(pending) > 0; {
		from := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		for _, d := range from.dependants {
			if !seen.has(d.node) && (!d.dependency().any || slices.Contains(d.node.uses, from)) {
				seen[d.node] = struct{}{}
				pending = append(pending, d.node)
			}
		}
	}
	return seen
}

// startReturned takes the outcome of a Start. It takes mu and returns with mu held: the caller goes on with the
// nodes that are due.
func (e *Engine) startReturned(r *componentRun, err error) {
	n := r.node
	var c cause
	if err != nil { // users' methods: outside the lock
		if r.TimedOut(err) {
			err = fault.Join("", []error{fmt.Errorf("start took longer than %v", n.c.StartTimeout), err})
		}
		c = causeOf(err)
	}
	e.lock()
	n.calls--
	if n.stage == stuckStart {
		e.startReturnedLate(n, c)
		e.commit()
		return
	}
	n.returned = e.now
	if err != nil {
		e.failStart(n, c)
	} else {
		n.started = true
		e.enter(n, checking, n.goal)
		e.check(n)
	}
	e.arriving++ // the caller comes for what is due
	e.commit()
	e.arriving--
}

// failStart ends a start whose Start has returned an error.
func (e *Engine) failStart(n *node, c cause) {
	if aborted := n.aborted(); aborted.err != nil { // which is why it returned
		c = aborted.before(c)
	}
	g := e.fail(n, c)
	if n.leftovers() {
		e.beginStop(n, g) // without its Stop
	} else {
		e.endStop(n, g)
	}
}

// fail notes why a start has failed, ends its context and returns what becomes of the node.
func (e *Engine) fail(n *node, c cause) goal {
	g := e.goalAfterFailure(n)
	n.setCause(c)
	n.ctx.EndAside()
	switch {
	case g == toStop:
		n.setCause(cause{})
	case g == toRestart && n.goal != toFollow:
		n.countRestart(e.now)
	}
	return g
}

// goalAfterFailure returns what becomes of a node whose start has failed. By its policy it is started again; one that
// was never ready only within the time of its first start.
func (e *Engine) goalAfterFailure(n *node) goal {
	switch {
	case e.ending() || n.removed:
		if n.wasReady {
			return toStop
		}
		return toFail
	case n.goal == toFollow && n.unrepeatable().err == nil:
		return toRestart
	case n.mayRestart(e.now) && (n.wasReady || n.mayRetryFirstStart(e.now)):
		return toRestart
	}
	return toFail
}

// mayRetryFirstStart reports whether the first start of a node may be tried once more in the time that is left of it.
func (n *node) mayRetryFirstStart(now time.Duration) bool {
	x := n.more()
	if x.startBy == 0 {
		x.startBy = n.began + n.c.StartTimeout
	}
	return n.unrepeatable().err == nil && now+n.nextDelay() < x.startBy
}

// startReturnedLate undoes a start that is not waited for any more.
func (e *Engine) startReturnedLate(n *node, c cause) {
	if c.err == nil {
		n.started = true
		n.more().late = true
	}
	if n.started || n.leftovers() {
		e.beginStop(n, toStop)
		return
	}
	n.setCause(c)
	e.enter(n, down, toFail)
}

// check goes on with a node whose Start has returned: it is rolled back, is ready, is probed, or has still to
// complete its work or to report that it is ready. It is called whenever that may have changed, and no code of the start runs.
func (e *Engine) check(n *node) {
	switch {
	case e.interrupted(n):
		e.stopInterrupted(n)
	case n.c.Completes && n.works():
	case n.c.Notifies && !n.notified:
	case n.c.Ready != nil:
		n.calls++
		n.more().probes++
		go e.probe(n.ctx, n)
	case len(n.c.Register) > 0:
		n.calls++
		go e.register(n.ctx, n)
	default:
		e.becomeReady(n)
	}
}

// interrupted reports whether the start of a node whose Start has returned must not go on.
func (e *Engine) interrupted(n *node) bool {
	return n.stage != checking || e.ending() || n.removed || n.aborted().err != nil
}

// stopInterrupted undoes a start that was interrupted, once no code of it runs.
func (e *Engine) stopInterrupted(n *node) {
	switch {
	case n.calls > 0:
	case n.stage == draining:
		e.stopWhenUnused(n)
	case n.stage != checking: // it was stopped although its code ran
	case e.ending() || n.removed:
		n.ctx.EndAside()
		e.stopWhenUnused(n)
	default:
		e.failCheck(n, n.aborted())
	}
}

// probe asks a component whether it is ready. It takes mu.
func (e *Engine) probe(ctx context.Context, n *node) {
	fault.RunThen(func() error { return n.c.Ready(ctx) }, func(err error) {
		c := causeOf(err)
		e.lock()
		defer e.mu.Unlock()
		switch {
		case !e.interrupted(n) && err == nil && len(n.c.Register) > 0:
			go e.register(ctx, n)
			return // its code runs on
		case e.interrupted(n):
			n.calls--
			e.stopInterrupted(n)
		case err == nil:
			n.calls--
			e.becomeReady(n)
		default:
			n.calls--
			n.setCause(c) // a timeout names it
			e.scheduleProbe(n)
		}
		e.commit()
	})
}

// The pauses between two probes grow by a fifth, from firstPause to maxPause or a twentieth of the time that the
// start has taken.
const (
	firstPause = time.Millisecond
	maxPause   = 25 * time.Millisecond
)

// scheduleProbe probes once more after a pause.
func (e *Engine) scheduleProbe(n *node) {
	x, run := n.more(), n.run
	x.pause = min(max(x.pause+x.pause/5, firstPause), max((e.now-n.began)/20, maxPause))
	x.timer = e.timers.After(x.pause, func() { go e.checkAgain(n, run) })
}

// checkAgain goes on with a node after a pause or its notification. It takes mu.
func (e *Engine) checkAgain(n *node, run int32) {
	e.lock()
	defer e.mu.Unlock()
	if n.run == run && n.stage == checking && n.calls == 0 {
		e.check(n)
		e.commit()
	}
}

// register registers what a component provides. It takes mu.
func (e *Engine) register(ctx context.Context, n *node) {
	var handles []Handle
	fault.RunThen(func() error {
		return registerAll(ctx, n.c.Register, &handles)
	}, func(err error) {
		c := causeOf(err)
		e.lock()
		defer e.mu.Unlock()
		n.calls--
		e.keepHandles(n, handles)
		switch {
		case e.interrupted(n):
			e.stopInterrupted(n)
		case err != nil:
			e.failCheck(n, c)
		default:
			e.becomeReady(n)
		}
		e.commit()
	})
}

// registerAll calls the functions in order, adds what they return to handles, and waits until calls can be given to it.
// Nothing is registered once the start is over.
func registerAll(ctx context.Context, functions []func(context.Context) (Handle, error), handles *[]Handle) error {
	for _, register := range functions {
		if ctx.Err() != nil {
			return fault.Join("", fault.OfContext(ctx))
		}
		handle, err := register(ctx)
		if err != nil {
			return err
		}
		if handle != nil {
			*handles = append(*handles, handle)
		}
	}
	for _, handle := range *handles {
		if err := handle.AwaitEligible(ctx); err != nil {
			return err
		}
	}
	return nil
}

// keepHandles keeps what a component has registered for its stop, or unregisters it when that has begun.
func (e *Engine) keepHandles(n *node, handles []Handle) {
	switch {
	case len(handles) == 0:
	case n.stage == checking || n.stage == draining:
		n.more().handles = handles
	default:
		go e.unregister(n, handles)
	}
}

// becomeReady ends a start well.
func (e *Engine) becomeReady(n *node) {
	n.ready, n.wasReady, n.completed = e.now, true, n.c.Completes
	n.setCause(cause{})
	n.ctx.EndAside()
	e.enter(n, running, toServe)
}

// failCheck ends a start whose Start had returned: the component is stopped once no code of it runs, which is
// not waited for long.
func (e *Engine) failCheck(n *node, c cause) {
	e.enter(n, draining, e.fail(n, c))
	if n.calls == 0 {
		e.beginStop(n, n.goal)
		return
	}
	n.deadline = e.now
	e.arm(n.deadline + tasks.Grace)
}

// abortStart tells a start to end, with the cause that it then fails for.
func (e *Engine) abortStart(n *node, c cause) {
	n.more().aborted = c
	n.ctx.EndAside()
	if n.stage == checking && n.calls == 0 {
		e.failCheck(n, c)
		return
	}
	n.deadline = min(n.deadline, e.now)
	e.arm(n.deadline + tasks.Grace)
}

var _ startup.Supervisor = (*componentRun)(nil)
