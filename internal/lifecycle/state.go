package lifecycle

import "github.com/capreg/registry/startup"

// A node has a stage, which is where its component is in its run, and a goal, which is what it is to become.
// Both change in [Engine.enter] only, and tests check every transition against this table.
//
//	planned
//	   │
//	   ▼
//	waiting ──▶ starting ──▶ checking ──▶ running
//	   ▲  │       │    │       │    │      │   │
//	   │  │       │    ▼       │    ▼      ▼   │
//	   │  │       │ stuckStart │   draining    │
//	   │  │       │    │  │    │      │        │
//	   │  │       │    │  ▼    ▼      ▼        ▼
//	   │  │       │    │ ───── stopping ────────
//	   │  ▼       ▼    ▼          │     │
//	   └──────── down ◀───────────┘     ▼
//	   restart    ▲──────────────── stuckStop
//
//	from        to          when
//	planned     waiting     Start or Add
//	waiting     starting    its needs are satisfied, and it has its turn
//	            down        a need has failed (toSkip); deadlock (toFail); everything stops or it is removed
//	                        (toSkip, or toStop where it was ready before)
//	starting    checking    Start returned nil
//	            down        Start failed and left nothing behind (toFail, or toRestart by its policy)
//	            stopping    Start failed and left goroutines or a run context behind
//	            stuckStart  Start has not returned in time
//	checking    running     it is notified, probed and registered
//	            draining    it is not ready in time, has failed or was aborted
//	            stopping    everything stops, or it is removed
//	running     draining    it has ended and is to restart
//	            stopping    everything stops, it is removed, or it restarts with what it needs
//	            running     it has ended for good, with an error (toFail) or without (toStop), and stops with the others
//	draining    stopping    its dependants are down and its own code has returned, or took too long
//	stopping    down        its stop has returned
//	            stuckStop   its stop, or code of a run that is to restart, has not returned in time
//	stuckStart  stopping    Start returned after all, and there is something to undo
//	            down        Start failed after all
//	stuckStop   down        its stop returned after all
//	down        waiting     the delay before its restart is over
//	            down        its restart was cancelled
//
// A component whose work is done when it is ready, such as a migration, stays at running: it is shown as completed, and
// stops with the others, after those that need it.
//
// A component that is starting, checking or running stays there when what it needs has ended and is to restart
// (toFollow): it stops once its start has been aborted, or its own dependants are down.
type stage uint8

const (
	planned    stage = iota // in the plan, and not started
	waiting                 // for its needs, or for its turn
	starting                // Start runs
	checking                // Start has returned; its notification, probe and registration are awaited
	running                 // ready
	draining                // to be stopped once its dependants are down and its own code has returned
	stopping                // its stop runs
	stuckStart              // Start does not return; it counts as down
	stuckStop               // its stop does not return; it counts as down
	down                    // not running, for good or until it restarts

	stageCount
)

// live reports whether code of the component may run: what it uses must not stop.
func (s stage) live() bool { return starting <= s && s <= stopping }

// launching reports whether the component takes a turn: one of those that start at once.
func (s stage) launching() bool { return s == starting || s == checking }

// timed reports whether the stage is part of a start or stop, the duration of which is in events.
func (s stage) timed() bool { return starting <= s && s <= stuckStop && s != running }

// goal is the state that a component is moved towards.
type goal uint8

const (
	toServe   goal = iota // ready
	toRestart             // started again after a delay, since it ended by itself
	toFollow              // started again after a component that it needs
	toFail                // down, as failed
	toStop                // down, as stopped
	toSkip                // down without having started

	goalCount
)

func (g goal) restarts() bool { return g == toRestart || g == toFollow }

// shown has the state that users see. A stage never has a goal that is not in its row.
var shown = [stageCount][goalCount]startup.State{ //nolint:gochecknoglobals // immutable
	planned:    {toServe: startup.Waiting},
	waiting:    {toServe: startup.Waiting},
	starting:   {toServe: startup.Starting, toFollow: startup.Starting},
	checking:   {toServe: startup.Starting, toFollow: startup.Starting},
	running:    {toServe: startup.Ready, toFollow: startup.Ready, toFail: startup.Failed, toStop: startup.Stopped},
	draining:   {toRestart: startup.Restarting, toFail: startup.Failed, toStop: startup.Stopping},
	stopping:   {toRestart: startup.Restarting, toFollow: startup.Stopping, toFail: startup.Failed, toStop: startup.Stopping},
	stuckStart: {toFail: startup.Stuck},
	stuckStop:  {toFail: startup.Stuck},
	down: {
		toRestart: startup.Restarting, toFollow: startup.Restarting,
		toFail: startup.Failed, toStop: startup.Stopped, toSkip: startup.Skipped,
	},
}

// state returns the state that users see.
func (n *node) state() startup.State {
	if n.completed && n.stage == running && n.goal == toServe {
		return startup.Completed
	}
	return shown[n.stage][n.goal]
}

// restarts reports whether the node is to start again once it is down.
func (n *node) restarts() bool { return n.goal.restarts() }

// isOpen reports whether the outcome of the node is not decided.
func (n *node) isOpen() bool { return n.stage == waiting || n.stage.launching() || n.restarts() }

// outcome is the effect of a node on the needs of its dependants.
type outcome uint8

const (
	undecided   outcome = iota
	available           // ready
	unavailable         // not ready, and not about to be
)

func (n *node) currentOutcome() outcome {
	switch {
	case n.stage == planned || n.isOpen():
		return undecided
	case n.stage == running && n.goal == toServe:
		return available
	}
	return unavailable
}

// enter moves a node to a stage and a goal: every transition goes through here. It keeps the counts of the
// engine, emits an event when the state that users see has changed, and notes the node for commit when its
// dependants have to know.
func (e *Engine) enter(n *node, to stage, g goal) {
	from, wasShown, wasOpen := n.stage, n.state(), n.isOpen()
	n.stage, n.goal = to, g
	if e.watch != nil {
		e.watch(from, to)
	}
	e.live += difference(from.live(), to.live())
	e.launching += difference(from.launching(), to.launching())
	if open := n.isOpen(); open != wasOpen {
		e.countOpen(n, difference(wasOpen, open))
	}
	if now := n.state(); e.listener != nil && now != wasShown && now != startup.Waiting {
		e.emit(n, from)
	}
	if n.currentOutcome() != n.outcome {
		e.changed = append(e.changed, n)
	}
}

// difference returns the change of a count when the condition that it counts changes for one thing.
func difference(before, after bool) int {
	switch {
	case before == after:
		return 0
	case after:
		return 1
	}
	return -1
}

// countOpen counts a node that became open, or is decided.
func (e *Engine) countOpen(n *node, change int) {
	e.open += change
	if e.options.Batches && e.phase == phaseStarting {
		for len(e.batchOpen) <= int(n.batch) {
			e.batchOpen = append(e.batchOpen, 0)
		}
		e.batchOpen[n.batch] += change
	}
	if x := n.extras; change < 0 && x != nil && x.decided != nil {
		close(x.decided)
		x.decided = nil
	}
}

// commit carries out what follows from the changes of nodes, and ends every step that made some: outcomes
// reach dependants, deadlocks are broken, turns are given, and a start or stop that is complete ends.
func (e *Engine) commit() {
	e.propagate()
	for n := e.deadlocked(); n != nil; n = e.deadlocked() {
		n.setCause(cause{errDeadlock, errDeadlock.Error()})
		e.enter(n, down, toFail)
		e.propagate()
	}
	e.moveToNextBatch()
	e.dispatch()
	e.endPhase()
}

// endPhase ends a start when every outcome is decided, and a stop when nothing is live.
func (e *Engine) endPhase() {
	switch {
	case e.phase == phaseStarting && e.open == 0:
		e.phase = phaseRunning
		e.wall = e.now - e.began
		close(e.decided)
		e.emitPhase(startup.Ready, e.wall)
	case e.phase == phaseStopping && e.live == 0:
		e.phase = phaseStopped
		e.emitPhase(startup.Stopped, 0)
		close(e.stopped)
		e.disarm()
		if e.rolledBack {
			close(e.decided)
		}
	}
}
