package lifecycle

import (
	"cmp"
	"slices"
	"time"

	"github.com/capreg/registry/startup"
)

// emit gives the listener the state of a node, which was at another stage before. There is a listener.
func (e *Engine) emit(n *node, from stage) {
	event := startup.Event{Component: n.c.Name, State: n.state(), Reason: n.because().text}
	if from.timed() && event.State != startup.Stopping {
		event.Took = e.now - n.since
	}
	e.push(event)
}

// emitPhase gives the listener the end of a start or stop.
func (e *Engine) emitPhase(state startup.State, took time.Duration) {
	if e.listener != nil {
		e.push(startup.Event{State: state, Took: took})
	}
}

func (e *Engine) push(event startup.Event) {
	event.Time, event.Total = e.epoch.Add(e.now), len(e.nodes)
	event.Settled = event.Total - e.open
	if e.ending() {
		event.Settled = event.Total - e.live
	}
	e.listener.push(event)
}

// Report returns how the start went, or goes.
func (e *Engine) Report() startup.Report {
	e.lock()
	defer e.mu.Unlock()
	r := startup.Report{Began: e.epoch.Add(e.began), Wall: e.wall, Err: e.err, RolledBack: e.rolledBack}
	if e.phase == phaseStarting {
		r.Wall = e.now - e.began
	}
	nodes := e.inTime()
	var ready []time.Duration
	r.Components, ready = e.describeNodes(nodes)
	e.addCriticalPath(&r, nodes, ready)
	if r.Wall > 0 {
		r.Efficiency = min(float64(r.CriticalPath)/float64(r.Wall), 1)
	}
	return r
}

// describeNodes returns what the report has of each node, and by their positions in the plan when they became ready.
func (e *Engine) describeNodes(nodes []*node) (all []startup.Component, ready []time.Duration) {
	at := make([]int32, len(nodes)) // of each node in the report
	for i, n := range nodes {
		at[n.id] = int32(i)
	}
	all, ready = make([]startup.Component, len(nodes)), make([]time.Duration, len(nodes))
	for _, n := range e.nodes { // as they lie in memory
		n.describe(&all[at[n.id]], e.began)
		ready[n.id] = n.firstStart().ready
	}
	return all, ready
}

// addCriticalPath adds the sum of all durations to a report, and the longest chain of them.
func (e *Engine) addCriticalPath(r *startup.Report, nodes []*node, ready []time.Duration) {
	paths := make([]time.Duration, len(nodes)) // the longest one that ends with each node
	before := make([]int32, len(nodes))        // the node before it on that path, plus one
	var last *node
	for i, n := range nodes {
		c := &r.Components[i]
		if c.Ready > r.Wall {
			continue // it was added later
		}
		took := c.Took()
		r.Work += took
		for i := range n.needs {
			if at := n.needs[i].latest(paths, ready); at != nil && paths[at.id] > paths[n.id] {
				paths[n.id], before[n.id] = paths[at.id], at.id+1
			}
		}
		paths[n.id] += took
		if last == nil || paths[n.id] > paths[last.id] {
			last = n
		}
	}
	if last == nil {
		return
	}
	r.CriticalPath = paths[last.id]
	for at := last.id; at >= 0; at = before[at] - 1 {
		r.Chain = append(r.Chain, e.nodes[at].c.Name)
	}
	slices.Reverse(r.Chain)
}

// inTime returns the nodes in the order of their batches, so that each comes after those it waited for. Where any
// of several would have been enough that may not be so: then they are in the order in which they became ready.
func (e *Engine) inTime() []*node {
	nodes := inBatches(e.nodes)
	if e.anyOf && slices.ContainsFunc(nodes, (*node).mayPrecedeNeed) {
		slices.SortStableFunc(nodes, func(a, b *node) int { return cmp.Compare(a.firstStart().ready, b.firstStart().ready) })
	}
	return nodes
}

// mayPrecedeNeed reports whether a member of a need is not in an earlier batch.
func (n *node) mayPrecedeNeed() bool {
	for i := range n.needs {
		need := &n.needs[i]
		if need.any && slices.ContainsFunc(need.members, func(member *node) bool { return member.batch >= n.batch }) {
			return true
		}
	}
	return false
}

// latest returns the member that the need waited for longest, by the length of the path to it.
func (d *dependency) latest(paths, ready []time.Duration) (found *node) {
	for _, member := range d.members {
		at := ready[member.id]
		switch {
		case at == 0:
		case found == nil, d.any && at < ready[found.id], !d.any && at >= ready[found.id] && paths[member.id] > paths[found.id]:
			found = member
		}
	}
	return found
}

// describe fills in what the report has of a node.
func (n *node) describe(c *startup.Component, began time.Duration) {
	at := n.firstStart()
	since := func(at time.Duration) time.Duration {
		if at == 0 {
			return 0
		}
		return at - began
	}
	*c = startup.Component{
		Name: n.c.Name, Version: n.c.Version, Kind: n.c.Kind, State: n.state(), Batch: int(n.batch) + 1,
		Queued: since(at.queued), Started: since(at.began), Returned: since(at.returned), Ready: since(at.ready),
	}
	if x := n.extras; x != nil {
		c.Late, c.Probes, c.Restarts, c.Absent, c.Detail = x.late, x.probes, x.restarts, x.missing, x.detail
		c.Reason, c.Err = x.cause.text, x.cause.err
	}
	if at.blockedBy != nil {
		c.BlockedBy = at.blockedBy.c.Name
	}
}
