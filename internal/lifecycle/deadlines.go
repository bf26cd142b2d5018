package lifecycle

import (
	"fmt"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/tasks"
)

// arm makes sure that deadlines are checked at a time, if not before. One timer serves them all: contexts end by
// themselves, and this is for code that does not heed them, and for what is waited for without code that runs.
func (e *Engine) arm(at time.Duration) {
	if e.sweeper != nil {
		if e.sweepAt <= at {
			return
		}
		e.sweeper.Stop()
	}
	e.sweepAt = at
	e.sweeper = e.timers.After(max(at-e.now, time.Millisecond), func() { go e.sweep() })
}

// disarm makes sure that the timer does not keep an engine that is over in memory.
func (e *Engine) disarm() {
	if e.sweeper != nil {
		e.sweeper.Stop()
		e.sweeper = nil
	}
}

// checkAt returns when a node is to be checked: at its deadline, or a grace later while code of it runs that
// should heed that. In a stop one that was starting again waits for those that use it.
func (e *Engine) checkAt(n *node) (at time.Duration, ok bool) {
	switch {
	case n.stage == checking && n.calls == 0:
		return n.deadline, !e.ending()
	case n.stage.live() && n.stage != running && n.calls > 0:
		return n.deadline + tasks.Grace, true
	}
	return 0, false
}

// sweep goes on with the nodes that have taken too long. It takes mu.
func (e *Engine) sweep() {
	e.lock()
	defer e.mu.Unlock()
	e.sweeper = nil
	for _, n := range e.nodes {
		if at, ok := e.checkAt(n); ok && e.now >= at {
			e.expire(n)
		}
	}
	e.commit()
	for _, n := range e.nodes {
		if at, ok := e.checkAt(n); ok {
			e.arm(at)
		}
	}
}

// expire ends a start or a stop whose time is over.
func (e *Engine) expire(n *node) {
	switch n.stage { //nolint:exhaustive // no other stage has a deadline
	case starting:
		n.setCause(n.timeoutCause())
		n.ctx.EndAside()
		if x := n.extras; x != nil && x.endRunContext != nil {
			go x.endRunContext(n.endOfRun())
		}
		e.markStuck(n, stuckStart, n.because().text+"; its start does not return")
		e.releaseNeeds(n)
	case checking:
		e.failCheck(n, n.timeoutCause())
	case draining: // its probe, or what registers it, does not return
		e.beginStop(n, n.goal)
	case stopping:
		e.markStuck(n, stuckStop, "its stop does not return")
		e.releaseNeeds(n)
	}
}

// timeoutCause returns why a start that takes too long fails.
func (n *node) timeoutCause() cause {
	if aborted := n.aborted(); aborted.err != nil {
		return aborted
	}
	err := fmt.Errorf("%w within %v", fault.ErrNotReady, n.c.StartTimeout)
	if n.c.Completes && n.works() {
		err = fmt.Errorf("%w: it has not completed within %v", fault.ErrNotReady, n.c.StartTimeout)
	}
	if n.because().err == nil {
		return cause{err, err.Error()}
	}
	return cause{fault.Join("", []error{err, n.because().err}), oneline.Cut(err.Error()+": "+n.because().text, maxCauseText)}
}
