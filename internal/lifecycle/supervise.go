package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/startup"
)

// current reports whether the run goes on.
func (r *componentRun) current() bool {
	return r.node.run == r.number && (r.node.stage.launching() || r.node.stage == running)
}

// RunContext returns the context of the run.
func (r *componentRun) RunContext() context.Context {
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	n, x := r.node, r.node.more()
	if n.run != r.number || x.runContext == nil && !r.current() {
		ended, cancel := context.WithCancelCause(r.engine.values)
		cancel(n.endOfRun())
		return ended
	}
	if x.runContext == nil {
		x.runContext, x.endRunContext = context.WithCancelCause(r.engine.values)
	}
	return x.runContext
}

// ComponentReady notes that the component has reported that it is ready.
func (r *componentRun) ComponentReady() {
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	n := r.node
	if !r.current() || n.notified {
		return
	}
	n.notified = true
	if n.stage == checking && n.c.Notifies {
		go r.engine.checkAgain(n, r.number)
	}
}

// ComponentGo runs f in a goroutine of the run.
func (r *componentRun) ComponentGo(f func(context.Context) error) {
	ctx := r.RunContext()
	r.engine.mu.Lock()
	if !r.current() || f == nil {
		r.engine.mu.Unlock()
		return
	}
	r.node.more().workers++
	r.engine.mu.Unlock()
	go fault.RunThen(func() error { return f(ctx) }, func(err error) { r.workerReturned(err, ctx.Err() != nil) })
}

// workerReturned notes that a goroutine of a run has returned: by itself, which is the end of the component or of a part
// of its work, or since it was told to.
func (r *componentRun) workerReturned(err error, told bool) {
	c := endOfComponent(err)
	e, n := r.engine, r.node
	e.lock()
	defer e.mu.Unlock()
	x := n.more()
	x.workers--
	if x.workers == 0 && x.idle != nil {
		close(x.idle)
		x.idle = nil
	}
	if !told {
		r.end(c)
	}
}

// ComponentDetail notes what the component says about its run.
func (r *componentRun) ComponentDetail(text string) {
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	if r.current() {
		r.node.more().detail = oneline.Short(text, maxDetail)
	}
}

// maxDetail bounds what a component says about its run, in bytes.
const maxDetail = 256

var errEndedEarly = fmt.Errorf("%w: it ended before it was ready", fault.ErrNotReady)

// ComponentEnded decides what follows when a component has ended by itself.
func (r *componentRun) ComponentEnded(err error) {
	c := endOfComponent(err)
	r.engine.lock()
	defer r.engine.mu.Unlock()
	r.end(c)
}

// endOfComponent returns why a component has ended by itself. An error's methods may be a user's: not to be called while
// mu is held.
func endOfComponent(err error) cause {
	if err == nil {
		return cause{text: "ended by itself"}
	}
	return causeOf(err)
}

// end decides what follows when a component, or one of its goroutines, has ended by itself: it has done its work, fails,
// or is restarted.
func (r *componentRun) end(c cause) {
	e, n, crashed := r.engine, r.node, c.err != nil
	switch {
	case !r.current() || e.ending() || n.removed || n.goal != toServe:
		return
	case c.err == nil && n.c.Completes:
		if n.stage == checking && n.calls == 0 && !n.works() {
			n.cancelTimer() // of a probe, which there is where the end was reported
			e.check(n)
			e.commit()
		}
		return
	case n.stage.launching():
		e.failEarlyEnd(n, c)
	case c.err == nil && n.c.Restart.Mode != startup.Always:
		n.setCause(c)
		e.enter(n, running, toStop)
	case n.mayRestart(e.now):
		n.setCause(c)
		e.restartRunning(n)
	default:
		e.failRunning(n, c)
	}
	e.removeHandles(n, crashed)
	e.commit()
}

// failEarlyEnd makes the start of a component fail that has ended before it was ready. Only its first end counts.
func (e *Engine) failEarlyEnd(n *node, c cause) {
	if n.aborted().err != nil {
		return
	}
	if c.err == nil {
		c = cause{errEndedEarly, errEndedEarly.Error()}
	}
	n.more().aborted = c
	switch {
	case n.stage != checking:
	case n.calls == 0:
		e.failCheck(n, c)
	default: // its probe, or the wait for what it has registered
		n.ctx.EndAside()
	}
}

// removeHandles unregisters what a component has registered that has ended, at once: its stop may have to wait for its
// dependants. The calls in flight at one that has crashed are cancelled, since what they wait for is gone.
func (e *Engine) removeHandles(n *node, crashed bool) {
	x := n.extras
	if x == nil || len(x.handles) == 0 {
		return
	}
	x.crashed = crashed
	if crashed {
		go withdraw(x.handles)
	} else {
		go e.unregister(n, x.handles)
	}
}

// withdraw removes handles without waiting for the calls in flight. It takes no lock.
func withdraw(handles []Handle) {
	for _, handle := range slices.Backward(handles) {
		_ = fault.Run(func() error { handle.Withdraw(); return nil })
	}
}

// failRunning fails a component that was ready, for good: it is stopped with the others.
func (e *Engine) failRunning(n *node, c cause) {
	if c.err == nil {
		c.err = errors.New(c.text)
	}
	n.setCause(c)
	e.enter(n, running, toFail)
}

// restartRunning restarts a component that has ended; where its policy says so, with its dependants, which stop
// before it.
func (e *Engine) restartRunning(n *node) {
	n.countRestart(e.now)
	e.enter(n, draining, toRestart)
	if n.c.Restart.Dependants {
		e.stopDependants(n)
	}
	e.stopIfUnblocked(n)
}

// intensityAt returns the restarts that were counted by that time: the count halves in each time of decay.
func (n *node) intensityAt(now time.Duration) float64 {
	if n.extras == nil || n.extras.intensity == 0 {
		return 0
	}
	return n.extras.intensity * math.Exp2(-float64(now-n.extras.endedAt)/float64(n.c.Restart.Decay))
}

// mayRestart reports whether the policy of the component allows a restart now.
func (n *node) mayRestart(now time.Duration) bool {
	return n.c.Restart.Mode != startup.Never && n.intensityAt(now)+1 <= float64(n.c.Restart.MaxRestarts)
}

// countRestart counts a restart, and makes its delay longer than the last one, which is forgotten once the component was
// up for as long as the count takes to halve.
func (n *node) countRestart(now time.Duration) {
	x := n.more()
	x.intensity, x.endedAt = n.intensityAt(now)+1, now
	if n.ready > 0 && now-n.ready >= n.c.Restart.Decay {
		x.delay = 0
	}
	x.delay = n.nextDelay()
}

// nextDelay returns the delay before the next restart.
func (n *node) nextDelay() time.Duration {
	return min(max(2*n.more().delay, n.c.Restart.FirstDelay), n.c.Restart.MaxDelay)
}

var errNeedEnded = errors.New("a component that it needs has ended")

// stopDependants makes all nodes that use a node, directly or not, stop before it and start again after it.
func (e *Engine) stopDependants(n *node) {
	followers := blockByUsers(n)
	for _, follower := range followers {
		e.enter(follower, follower.stage, toFollow)
	}
	for _, follower := range followers {
		if follower.stage.launching() {
			e.abortStart(follower, cause{errNeedEnded, errNeedEnded.Error()})
		} else {
			e.stopIfUnblocked(follower)
		}
	}
}

// blockByUsers makes the users of a node, and theirs, block the stop of what they use, and returns those that do
// not restart anyway.
func blockByUsers(n *node) (followers []*node) {
	seen := make(nodeSet)
	for pending := []*node{n}; len(pending) > 0; {
		from := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		var last *node // the needs of one node are adjacent
		for _, d := range from.dependants {
			user := d.node
			if user == last || d.dependency().orderOnly || !user.isUsing(from) || user.goal == toFail || user.removed {
				continue
			}
			last = user
			from.more().blockers++
			x := user.more()
			x.blocks = append(x.blocks, from)
			if user.restarts() || seen.has(user) {
				continue // its own policy has decided for its users
			}
			seen[user] = struct{}{}
			pending = append(pending, user)
			followers = append(followers, user)
		}
	}
	return followers
}

// isUsing reports whether a node is live and was started with another one.
func (n *node) isUsing(other *node) bool { return n.stage.live() && slices.Contains(n.uses, other) }

// stopIfUnblocked begins to stop a node that is to restart, once its blockers are down; all its users when
// everything is being stopped meanwhile.
func (e *Engine) stopIfUnblocked(n *node) {
	if n.restarts() && n.stoppable() && !n.blocked() && (!e.ending() || n.users == 0) {
		e.beginStop(n, n.goal)
	}
}
