package registry

import (
	"cmp"
	"slices"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/startup"
)

// emit tells the listener of the state of a node. Caller holds mu.
func (o *Orchestrator) emit(n *node, took time.Duration) {
	if o.unread != nil {
		o.push(startup.Event{Component: n.c.Name, State: n.state, Took: took, Reason: n.reason})
	}
}

// emitWhole tells the listener of the end of a start or stop. Caller holds mu.
func (o *Orchestrator) emitWhole(state startup.State, took time.Duration, reason string) {
	if o.unread != nil {
		o.push(startup.Event{State: state, Took: took, Reason: reason})
	}
}

func (o *Orchestrator) push(e startup.Event) {
	e.Time, e.Total = time.Now(), len(o.nodes)
	e.Settled = e.Total - max(o.open, 0)
	if o.phase == phaseStopping || o.phase == phaseStopped {
		e.Settled = e.Total - o.up
	}
	o.unread.Push(e)
	if !o.delivering {
		o.delivering = true
		go o.deliver()
	}
}

// deliver gives events to the listener until there are none left.
func (o *Orchestrator) deliver() {
	next := func() (startup.Event, bool) {
		o.mu.Lock()
		defer o.mu.Unlock()
		e, lost, ok := o.unread.Pop()
		e.Lost = lost
		o.delivering = ok
		return e, ok
	}
	exited := true
	defer func() {
		if exited { // a listener that exits its goroutine must not be the last one
			go o.deliver()
		}
	}()
	for e, ok := next(); ok; e, ok = next() {
		_ = fault.Run(func() error { o.options.Listen(e); return nil })
	}
	exited = false
}

// Report returns how the start went, or goes.
func (o *Orchestrator) Report() startup.Report {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := startup.Report{Began: o.epoch.Add(o.began), Wall: o.wall, Err: o.err, RolledBack: o.rolledBack}
	if o.phase == phaseStarting {
		r.Wall = o.now() - o.began
	}
	nodes := o.inTime()
	at := make([]int32, len(nodes)) // of each in the report
	for i, n := range nodes {
		at[n.id] = int32(i)
	}
	r.Components = make([]startup.Component, len(nodes))
	ready := make([]time.Duration, len(nodes)) // when each was
	for _, n := range o.nodes {                // as they lie in memory
		n.report(&r.Components[at[n.id]], o.began)
		ready[n.id] = n.start().ready
	}
	paths := make([]time.Duration, len(nodes)) // the longest one that ends with each
	before := make([]int32, len(nodes))        // who precedes it on the path, plus one
	var last *node
	for i, n := range nodes {
		c := &r.Components[i]
		if c.Ready > r.Wall {
			continue // it was added later
		}
		took := c.Took()
		r.Work += took
		for i := range n.needs {
			if at := n.needs[i].critical(paths, ready); at != nil && paths[at.id] > paths[n.id] {
				paths[n.id], before[n.id] = paths[at.id], int32(at.id+1) //nolint:gosec // there is no memory for more
			}
		}
		paths[n.id] += took
		if last == nil || paths[n.id] > paths[last.id] {
			last = n
		}
	}
	if last != nil {
		r.CriticalPath = paths[last.id]
		for at := last.id; at >= 0; at = int(before[at]) - 1 {
			r.Chain = append(r.Chain, o.nodes[at].c.Name)
		}
		slices.Reverse(r.Chain)
	}
	if r.Wall > 0 {
		r.Efficiency = min(float64(r.CriticalPath)/float64(r.Wall), 1)
	}
	return r
}

// inTime returns the nodes in the order of their batches so that each comes after those
// it waited for. It may be otherwise where any of several would have been enough.
// Caller holds mu.
func (o *Orchestrator) inTime() []*node {
	nodes := inBatches(o.nodes)
	late := func(n *node) bool {
		return slices.ContainsFunc(n.needs, func(g dependency) bool {
			return g.any && slices.ContainsFunc(g.members, func(member *node) bool { return member.batch >= n.batch })
		})
	}
	if o.anyOf && slices.ContainsFunc(nodes, late) {
		slices.SortStableFunc(nodes, func(a, b *node) int { return cmp.Compare(a.start().ready, b.start().ready) })
	}
	return nodes
}

// critical returns the member that the need waited for longest, by the length of the
// path to it.
func (g *dependency) critical(paths, ready []time.Duration) (found *node) {
	for _, member := range g.members {
		at := ready[member.id]
		switch {
		case at == 0:
		case found == nil, g.any && at < ready[found.id], !g.any && at >= ready[found.id] && paths[member.id] > paths[found.id]:
			found = member
		}
	}
	return found
}

func (n *node) report(c *startup.Component, began time.Duration) {
	at := n.start()
	since := func(at time.Duration) time.Duration {
		if at == 0 {
			return 0
		}
		return at - began
	}
	*c = startup.Component{
		Name: n.c.Name, Version: n.c.Version, State: n.state, Batch: n.batch + 1,
		Queued: since(at.queued), Started: since(at.began), Returned: since(at.returned), Ready: since(at.ready),
		Late: n.late, Reason: n.reason, Err: n.err,
	}
	if x := n.extras; x != nil {
		c.Probes, c.Restarts, c.Absent = x.probes, x.restarts, x.missing
	}
	if at.blockedBy != nil {
		c.BlockedBy = at.blockedBy.c.Name
	}
}
