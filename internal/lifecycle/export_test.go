package lifecycle

import (
	"fmt"
	"slices"

	"github.com/capreg/registry/startup"
)

var stageNames = [stageCount]string{
	planned: "planned", waiting: "waiting", starting: "starting", checking: "checking", running: "running", draining: "draining",
	stopping: "stopping", stuckStart: "stuckStart", stuckStop: "stuckStop", down: "down",
}

// next has the stages that may follow each stage, as the table of state.go says.
var next = [stageCount][]stage{
	planned:    {waiting},
	waiting:    {starting, down},
	starting:   {starting, checking, stopping, stuckStart, down},
	checking:   {checking, running, draining, stopping},
	running:    {running, draining, stopping},
	draining:   {stopping},
	stopping:   {stuckStop, down},
	stuckStart: {stopping, down},
	stuckStop:  {down},
	down:       {waiting, down},
}

// Watch calls f with every transition, and with what is wrong with it: it is not in the table, or the counts of the
// engine are not those of its nodes.
func (e *Engine) Watch(f func(transition string, wrong error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watch = func(from, to stage) {
		transition := stageNames[from] + " -> " + stageNames[to]
		var wrong error
		if !slices.Contains(next[from], to) {
			wrong = fmt.Errorf("%s is not in the table", transition)
		}
		f(transition, wrong)
	}
}

// Check returns what is wrong with the counts and states of the engine.
func (e *Engine) Check() (wrong error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	open, up, launching := 0, 0, 0
	for _, n := range e.nodes {
		open += difference(false, n.isOpen())
		up += difference(false, n.stage.live())
		launching += difference(false, n.stage.launching())
		switch {
		case n.stage > waiting && n.state() == startup.Waiting:
			return fmt.Errorf("%s is at stage %s with goal %d, which no table has", n.c.Name, stageNames[n.stage], n.goal)
		case n.outcome != n.currentOutcome():
			return fmt.Errorf("dependants of %s do not know that it is %v", n.c.Name, n.state())
		case n.calls < 0 || n.users < 0 || n.extras != nil && (n.extras.blockers < 0 || n.extras.workers < 0):
			return fmt.Errorf("%s has a negative count", n.c.Name)
		}
	}
	if open != e.open || up != e.live || launching != e.launching || len(e.changed) > 0 {
		return fmt.Errorf("%d open, %d up, %d launching, counted as %d, %d, %d", open, up, launching, e.open, e.live, e.launching)
	}
	return nil
}

// Transitions returns how many transitions the table has.
func Transitions() (count int) {
	for _, to := range next {
		count += len(to)
	}
	return count
}
