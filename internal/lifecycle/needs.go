package lifecycle

import (
	"errors"
	"fmt"
	"slices"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/startup"
)

// A waiting node counts the outcomes of the members of its needs. What it has counted of a member is the
// member's field outcome, which changes in publish only: so counts and outcomes always agree, in whatever
// order nodes change.

// needStatus is the state of one need of a waiting node.
type needStatus uint8

const (
	needWaiting needStatus = iota
	needSatisfied
	needFailed
)

// errDeadlock is the failure of a component that waits for others which wait for it, since another provider
// that would have been enough has failed.
var errDeadlock = errors.New("deadlock: waits for components that wait for it, and no other provider of the capability is left")

// wait lets nodes wait for their needs; those that have none, or whose needs are satisfied, wait for their
// turn.
func (e *Engine) wait(nodes []*node) {
	for _, n := range nodes {
		if n.wasReady && n.more().first == nil {
			first := n.milestones
			n.extras.first = &first
		}
		e.enter(n, waiting, toServe)
	}
	e.turns.nodes = slices.Grow(e.turns.nodes, len(nodes))
	for _, n := range nodes {
		e.recount(n)
	}
}

// recount counts the needs of a waiting node from the beginning.
func (e *Engine) recount(n *node) {
	n.resetNeeds()
	for at := range n.needs {
		need := &n.needs[at]
		for _, member := range need.members {
			if member.outcome != undecided {
				e.count(n, need, member)
			}
		}
		if need.status == needFailed {
			e.enter(n, down, toSkip)
			return
		}
	}
	if n.unmet == 0 {
		e.enqueue(n)
	}
}

// resetNeeds forgets what the node has counted.
func (n *node) resetNeeds() {
	n.unmet, n.blockedBy = 0, nil
	n.setCause(cause{})
	for at := range n.needs {
		need := &n.needs[at]
		need.unknown, need.status = int32(len(need.members)), needSatisfied //nolint:gosec // there is no memory for more
		if need.unknown > 0 {
			need.status = needWaiting
			n.unmet++
		}
	}
	if x := n.extras; x != nil {
		x.missing = nil
		for _, need := range x.absent {
			x.missing = append(x.missing, need.String())
		}
	}
}

// count counts the outcome of a member of a need.
func (e *Engine) count(n *node, need *dependency, member *node) {
	if need.status != needWaiting {
		return
	}
	need.unknown--
	ok := member.outcome == available
	tolerant := need.optional || need.orderOnly || e.options.OnFailure == startup.Continue
	if !ok && tolerant && !need.orderOnly {
		x := n.more()
		x.missing = append(x.missing, need.disappointment(member))
	}
	switch {
	case !ok && !tolerant && (!need.any || need.unknown == 0):
		need.status = needFailed
		n.setCause(cause{member.because().err, "needs " + need.disappointment(member)})
	case need.unknown == 0, ok && need.any:
		need.status = needSatisfied
		n.unmet--
		n.blockedBy = member
	}
}

// disappointment says why a need is not satisfied by a member.
func (d *dependency) disappointment(member *node) string {
	return fmt.Sprintf("%v of %q, which %v", d.need(), member.c.Name, member.state())
}

// propagate publishes the outcomes that have changed, until nothing follows from that any more.
func (e *Engine) propagate() {
	for last := len(e.changed) - 1; last >= 0; last = len(e.changed) - 1 {
		n := e.changed[last]
		e.changed[last] = nil
		e.changed = e.changed[:last]
		if n.outcome != n.currentOutcome() {
			e.publish(n)
		}
	}
}

// publish lets the dependants of a node, and the engine, act on its new outcome.
func (e *Engine) publish(n *node) {
	before := n.outcome
	n.outcome = n.currentOutcome()
	if n.outcome == unavailable {
		e.escalate(n)
	}
	switch {
	case e.ending():
	case before == undecided:
		e.countInDependants(n)
	default:
		e.recountDependants(n)
	}
}

// countInDependants counts a new outcome in the nodes that wait for it.
func (e *Engine) countInDependants(member *node) {
	for _, d := range member.dependants {
		n, need := d.node, d.dependency()
		if n.stage != waiting || need.status != needWaiting {
			continue
		}
		e.count(n, need, member)
		switch {
		case need.status == needFailed:
			e.enter(n, down, toSkip)
		case n.unmet == 0:
			e.enqueue(n)
		}
	}
}

// recountDependants recounts the needs of the nodes that wait for a member: they have counted an earlier outcome
// of it.
func (e *Engine) recountDependants(member *node) {
	var last *node // the needs of one node are adjacent
	for _, d := range member.dependants {
		if d.node.stage == waiting && d.node != last {
			last = d.node
			e.recount(d.node)
		}
	}
}

// escalate ends the start, or the program, when a critical component has failed.
func (e *Engine) escalate(n *node) {
	if s := n.state(); s != startup.Failed && s != startup.Stuck || n.c.NonCritical || n.removed {
		return
	}
	switch {
	case e.phase == phaseStarting && e.options.OnFailure == startup.Abort:
		e.rollback(fault.Wrap(fmt.Sprintf("registry: start of component %q: ", n.c.Name), n.because().err),
			fmt.Sprintf("all components are being stopped, since %q has failed", n.c.Name))
	case e.phase == phaseRunning && n.wasReady && e.err == nil:
		e.err = fault.Wrap(fmt.Sprintf("registry: component %q: ", n.c.Name), n.because().err)
		close(e.failed)
	}
}

// deadlocked returns a component that waits for others which wait for it; nil when something goes on, or
// nothing waits.
func (e *Engine) deadlocked() (first *node) {
	if e.open == 0 || e.ending() || e.launching > 0 || e.pendingTurns() > 0 || e.turns.Len() > 0 {
		return nil
	}
	for _, n := range e.nodes {
		switch {
		case !n.isOpen():
		case n.stage != waiting || n.unmet == 0:
			return nil
		case first == nil:
			first = n
		}
	}
	return first
}
