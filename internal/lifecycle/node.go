package lifecycle

import (
	"context"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/startup"
)

// node is a component in the plan and its progress. What every start reads comes first, so that it shares cache
// lines.
type node struct {
	// Planning sets these.
	needs      []dependency
	dependants []dependant

	unmet     int32   // needs that are not satisfied
	unbatched int32   // needs without a batch; while planning
	stage     stage   // changes in enter only
	goal      goal    // changes in enter only
	outcome   outcome // that the dependants have counted; changes in publish only

	// Facts that no stage implies.
	notified  bool // the component has reported that it is ready
	started   bool // Start returned nil: a Stop is owed
	completed bool // it was ready when its work was done
	wasReady  bool // in this run or an earlier one
	removed   bool // by Remove, or since its Add failed: it must not restart

	// Planning sets these, too.
	c     *Component
	id    int32 // position in the plan
	batch int32
	rank  time.Duration // length of the longest path from here to an end

	calls int32   // functions of the component that run, but for goroutines of its run
	users int32   // live nodes that use it
	run   int32   // counts the runs
	uses  []*node // what the run was started with

	milestones
	since    time.Duration // begin of the start or stop
	deadline time.Duration // of the start or stop

	ctx    *attemptctx.Context // of the start
	extras *extras             // nil for most
}

// milestones of a start, on the engine's clock.
type milestones struct {
	queued, began, returned, ready time.Duration
	blockedBy                      *node
}

// cause is an error with its text, which may not be asked for while mu is held.
type cause struct {
	err  error
	text string
}

const maxCauseText = 300

// causeOf reads the text of an error, which may be a user's: not to be called while mu is held.
func causeOf(err error) cause {
	if err == nil {
		return cause{}
	}
	return cause{err, oneline.Cut(fault.Text(err), maxCauseText)}
}

// before puts c before another cause.
func (c cause) before(other cause) cause {
	return cause{fault.Join("", []error{c.err, other.err}), oneline.Cut(c.text+"; "+other.text, maxCauseText)}
}

// extras holds the fields that few components need, so that a plan of many stays small.
type extras struct {
	cause   cause          // of its state, if any
	absent  []startup.Need // optional needs without a provider
	missing []string       // what the component goes without
	late    bool           // a Start returned after its time
	detail  string         // what the component says about its run

	probes int
	pause  time.Duration   // before the next probe
	timer  *schedule.Timer // of the next probe or restart

	runContext    context.Context //nolint:containedctx // nil until the component asks for it
	endRunContext context.CancelCauseFunc
	workers       int           // goroutines of the run
	idle          chan struct{} // closed when there are none; nil while nothing waits
	handles       []Handle
	crashed       bool // it has ended with an error: its restart does not wait for calls at its handles

	decided chan struct{} // closed when the outcome is; nil unless an Add waits
	down    chan struct{} // closed when the node is down; nil unless a removal waits

	stopErr       error
	stopContext   *attemptctx.Context
	stopCancelled bool // the context of the stop is to end at once

	aborted      cause // why the start fails as soon as its own code has returned
	unrepeatable cause // why the first start is not waited for any more, and not repeated

	first     *milestones // of the first start, once there is another one
	restarts  int
	intensity float64 // restarts, halved every Decay
	endedAt   time.Duration
	delay     time.Duration // before the next restart
	startBy   time.Duration // when the tries of the first start are over; zero before the second one
	blockers  int           // dependants that have to be down before its stop begins
	blocks    []*node       // nodes that it is a blocker of
}

// more returns the extras, to be changed.
func (n *node) more() *extras {
	if n.extras == nil {
		n.extras = &extras{}
	}
	return n.extras
}

// because returns the cause of the state of the node.
func (n *node) because() cause {
	if n.extras == nil {
		return cause{}
	}
	return n.extras.cause
}

func (n *node) setCause(c cause) {
	if n.extras != nil || c != (cause{}) {
		n.more().cause = c
	}
}

// firstStart returns the milestones of the first start.
func (n *node) firstStart() *milestones {
	if n.extras != nil && n.extras.first != nil {
		return n.extras.first
	}
	return &n.milestones
}

func (n *node) aborted() cause {
	if n.extras == nil {
		return cause{}
	}
	return n.extras.aborted
}

func (n *node) unrepeatable() cause {
	if n.extras == nil {
		return cause{}
	}
	return n.extras.unrepeatable
}

func (n *node) blocked() bool { return n.extras != nil && n.extras.blockers > 0 }

// stopErr returns how the last stop ended.
func (n *node) stopErr() error {
	if n.extras == nil {
		return nil
	}
	return n.extras.stopErr
}

// works reports whether goroutines of the run have not returned.
func (n *node) works() bool { return n.extras != nil && n.extras.workers > 0 }

// leftovers reports whether a start has made something that outlives it: a run context, goroutines or
// registrations.
func (n *node) leftovers() bool {
	x := n.extras
	return x != nil && (x.endRunContext != nil || x.workers > 0 || len(x.handles) > 0)
}

// cancelTimer cancels the next probe or restart.
func (n *node) cancelTimer() {
	if x := n.extras; x != nil && x.timer != nil {
		x.timer.Stop()
		x.timer = nil
	}
}
