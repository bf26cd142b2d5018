package registry

import (
	"math"
	"slices"
	"time"

	"github.com/capreg/registry/internal/graph"
	"github.com/capreg/registry/startup"
)

// node is a component within an orchestration. Orchestrator.mu guards all fields
// but id and c.
type node struct {
	id int
	c  *Component

	// What planning decides.
	needs []dependency
	feeds []feed // the needs of others that look at this one
	batch int
	rank  time.Duration // of the longest path from here to an end
	above int32         // needs that still have to get a layer; while planning

	progress
}

// dependency is a need of a node, and how far it is satisfied.
type dependency struct {
	need    *startup.Need
	members []*node
	left    int32 // members that are not settled, or not ready where they must be
	above   int32 // members that still have to get a layer; while planning
	open    bool

	any, optional, orderOnly bool // as in need, and nearer
}

// feed names a need that looks at a node.
type feed struct {
	node *node
	need int
}

// needed reports whether the need is more than one for an order.
func (f feed) needed() bool { return !f.node.needs[f.need].orderOnly }

// keeps reports whether the one that is looked at cannot be removed: it is needed, or
// those that are left of several could wait for each other.
func (f feed) keeps() bool { return f.needed() || f.node.needs[f.need].any }

// planNodes fills in what the nodes need of each other, and returns their names.
// added are those whose needs are new; the others remain as they are. Ranks are made
// only where somebody asks for them.
func planNodes(nodes, added []*node, ranked bool, last *startup.Report) (names, error) {
	p := newPlanner(nodes)
	failure := &startup.PlanError{Duplicates: p.duplicates}
	wanted := 0
	for _, n := range added {
		wanted += len(n.c.Needs)
	}
	all := make([]dependency, 0, wanted) // of all that are added: one allocation
	for _, n := range added {
		first := len(all)
		for i := range n.c.Needs {
			need := &n.c.Needs[i]
			members := p.providers(n, need)
			switch {
			case len(members) > 0:
				all = append(all, dependency{
					need: need, members: members, any: need.Any, optional: need.Optional, orderOnly: need.OrderOnly,
				})
			case need.Optional || need.OrderOnly:
				x := n.more()
				x.absent = append(x.absent, *need)
			default:
				failure.Missing = append(failure.Missing, p.missing(n, *need, len(failure.Missing) < nearestMissing))
			}
		}
		n.needs = all[first:len(all):len(all)]
	}
	p.connect(added)
	if left := p.layer(); left > 0 {
		failure.Cycles = p.cycles()
	}
	if len(failure.Missing)+len(failure.Duplicates)+len(failure.Cycles) > 0 {
		disconnect(added)
		return nil, failure
	}
	if ranked {
		p.weigh(last)
	}
	return p.names, nil
}

// names says whose a word is. One map is for the names of components and for
// capabilities, which are often the same words.
type names map[string]owner

// owner are positions in a plan, each one more than it is, so that zero is none.
type owner struct {
	component int32 // whose name it is
	provider  int32 // the only one that provides it; below zero, a position in planner.several
}

// planner looks names up.
type planner struct {
	nodes      []*node
	names      names
	several    [][]*node // who provides one capability together
	duplicates []string
}

func newPlanner(nodes []*node) *planner {
	p := &planner{nodes: nodes, names: make(names, len(nodes))}
	for i, n := range nodes {
		n.id = i
		known, at := len(p.names), int32(i+1)
		o := owner{component: at}
		if slices.Contains(n.c.Provides, n.c.Name) {
			o.provider = at
		}
		if p.names[n.c.Name] = o; len(p.names) == known { // one look-up instead of two
			p.duplicates = append(p.duplicates, n.c.Name)
		}
	}
	slices.Sort(p.duplicates)
	p.duplicates = slices.Compact(p.duplicates)
	for _, n := range nodes {
		for _, capability := range n.c.Provides {
			if capability != n.c.Name {
				p.names[capability] = p.provide(p.names[capability], n)
			}
		}
	}
	return p
}

// provide adds a node to those that provide a word.
func (p *planner) provide(o owner, n *node) owner {
	switch {
	case o.provider == 0:
		o.provider = int32(n.id + 1) //nolint:gosec // there is no memory for more
	case o.provider > 0:
		p.several = append(p.several, []*node{p.nodes[o.provider-1]})
		o.provider = -int32(len(p.several)) //nolint:gosec // there is no memory for more
		fallthrough
	default:
		all := &p.several[-o.provider-1]
		at, _ := slices.BinarySearchFunc(*all, n.id, func(other *node, id int) int { return other.id - id })
		*all = slices.Insert(*all, at, n) // who is called like it is there before its turn
	}
	return o
}

// only returns the node at a position of an [owner].
func (p *planner) only(at int32) []*node {
	if at == 0 {
		return nil
	}
	return p.nodes[at-1 : at : at]
}

// providers returns who satisfies the need. A component does not satisfy its own,
// unless nobody else does: then it waits for itself.
func (p *planner) providers(of *node, need *startup.Need) []*node {
	if need.Component != "" {
		return p.only(p.names[need.Component].component)
	}
	o := p.names[need.Capability]
	if o.provider >= 0 {
		if need.Optional && int(o.provider) == of.id+1 {
			return nil // an optional one is then nobody's
		}
		return p.only(o.provider)
	}
	all := p.several[-o.provider-1]
	if slices.Contains(all, of) {
		all = slices.DeleteFunc(slices.Clone(all), func(n *node) bool { return n == of })
	}
	return all
}

// An error suggests so many similar names for each missing one; for more missing ones
// than that it suggests none, since looking for them takes its time.
const nearestNames, nearestMissing = 3, 100

func (p *planner) missing(n *node, need startup.Need, suggest bool) startup.Missing {
	if !suggest {
		return startup.Missing{Component: n.c.Name, Need: need}
	}
	var known []string
	wanted := need.Capability
	if need.Component != "" {
		wanted = need.Component
	}
	for word, o := range p.names {
		if need.Component != "" && o.component != 0 || need.Component == "" && o.provider != 0 {
			known = append(known, word)
		}
	}
	return startup.Missing{Component: n.c.Name, Need: need, Nearest: graph.Nearest(wanted, known, nearestNames)}
}

// connect tells the members of each need who looks at them, and lets each node have
// room for those that it uses.
func (p *planner) connect(added []*node) {
	counts := make([]int32, len(p.nodes))
	members := 0
	for _, n := range added {
		for at := range n.needs {
			members += len(n.needs[at].members)
			for _, member := range n.needs[at].members {
				counts[member.id]++
			}
		}
	}
	feeds, uses := make([]feed, 0, members), make([]*node, 0, members) // of all: one allocation
	for i := range counts {
		count := int(counts[i])
		if n := p.nodes[i]; count > 0 && len(n.feeds) == 0 {
			n.feeds = feeds[len(feeds) : len(feeds) : len(feeds)+count]
			feeds = feeds[:len(feeds)+count]
		}
	}
	for _, n := range added {
		first := len(uses)
		for at := range n.needs {
			uses = append(uses, n.needs[at].members...)
			for _, member := range n.needs[at].members {
				member.feeds = append(member.feeds, feed{n, at})
			}
		}
		n.uses = uses[first:first:len(uses)]
	}
}

// disconnect undoes connect, in both directions.
func disconnect(gone []*node) {
	left := make(map[*node]bool, len(gone))
	for _, n := range gone {
		left[n] = true
	}
	for _, n := range gone {
		for i := range n.needs {
			for _, member := range n.needs[i].members {
				member.feeds = slices.DeleteFunc(member.feeds, func(f feed) bool { return left[f.node] })
			}
		}
		for _, f := range n.feeds { // those that only came after it
			g := &f.node.needs[f.need]
			g.members = slices.DeleteFunc(slices.Clone(g.members), func(member *node) bool { return left[member] })
		}
	}
}

// layer gives each node the batch in which it can start when nothing fails, and
// returns how many never can.
func (p *planner) layer() (left int) {
	const never = -1
	order := make([]*node, 0, len(p.nodes))
	for _, n := range p.nodes {
		n.batch, n.above = never, 0
		for at := range n.needs {
			g := &n.needs[at]
			g.above = int32(len(g.members)) //nolint:gosec // there is no memory for more
			if g.any {
				g.above = min(g.above, 1)
			}
			if g.above > 0 {
				n.above++
			}
		}
		if n.above == 0 {
			n.batch = 0
			order = append(order, n)
		}
	}
	for at := 0; at < len(order); at++ { // it grows meanwhile
		for _, f := range order[at].feeds {
			g := &f.node.needs[f.need]
			if g.above--; g.above == 0 {
				if f.node.above--; f.node.above == 0 {
					f.node.batch = order[at].batch + 1
					order = append(order, f.node)
				}
			}
		}
	}
	return len(p.nodes) - len(order)
}

// cycles returns why some nodes never start.
func (p *planner) cycles() []startup.Cycle {
	g := graph.New(len(p.nodes))
	for _, n := range p.nodes {
		if n.batch >= 0 {
			continue
		}
		for _, need := range n.needs {
			for _, member := range need.members {
				if member.batch < 0 {
					g.Add(member.id, n.id)
				}
			}
		}
	}
	var all []startup.Cycle
	for _, found := range g.Cycles() {
		slices.Reverse(found[1:]) // each comes before the next one; a user reads who needs whom
		cycle := make(startup.Cycle, len(found))
		for i, id := range found {
			n, next := p.nodes[id], p.nodes[found[(i+1)%len(found)]]
			cycle[i].Name = n.c.Name
			for _, g := range n.needs {
				if slices.Contains(g.members, next) {
					cycle[i].Need = *g.need
					break
				}
			}
		}
		all = append(all, cycle)
	}
	return all
}

// weigh gives each node its rank, and puts the nodes of a plan in their order.
func (p *planner) weigh(last *startup.Report) {
	known := make(map[string]time.Duration)
	if last != nil {
		for _, c := range last.Components {
			known[c.Name] = c.Took()
		}
	}
	longest := time.Duration(math.MaxInt64)/time.Duration(len(p.nodes)+1) - 1 // so that a sum of all fits
	ranks := p.graph().Ranks(func(id int) time.Duration {
		if last == nil {
			return 1
		}
		return min(known[p.nodes[id].c.Name], longest) + 1
	})
	for i, n := range p.nodes {
		n.rank = ranks[i]
	}
}

// graph returns the needs that the layers follow: without those that any other
// member satisfies sooner.
func (p *planner) graph() *graph.Graph {
	g := graph.New(len(p.nodes))
	for _, n := range p.nodes {
		for _, need := range n.needs {
			for _, member := range need.members {
				if member.batch < n.batch {
					g.Add(member.id, n.id)
				}
			}
		}
	}
	return g
}

// describe returns the plan of the nodes.
func describe(nodes []*node) startup.Plan {
	var plan startup.Plan
	for _, n := range inBatches(nodes) {
		for len(plan.Batches) <= n.batch {
			plan.Batches = append(plan.Batches, nil)
		}
		plan.Batches[n.batch] = append(plan.Batches[n.batch], n.c.Name)
		step := startup.Step{Name: n.c.Name, Version: n.c.Version, Batch: n.batch + 1}
		if n.extras != nil {
			step.Absent = slices.Clone(n.extras.absent)
		}
		for _, g := range n.needs {
			for _, member := range g.members {
				step.After = append(step.After, startup.Link{Name: member.c.Name, Need: *g.need})
			}
		}
		plan.Steps = append(plan.Steps, step)
	}
	return plan
}

// inBatches returns the nodes in the order of their batches, and of the plan within
// each.
func inBatches(nodes []*node) []*node {
	var ends []int // of each batch: after how many nodes it does
	for _, n := range nodes {
		for len(ends) <= n.batch {
			ends = append(ends, 0)
		}
		ends[n.batch]++
	}
	for i := range ends[:max(len(ends)-1, 0)] {
		ends[i+1] += ends[i]
	}
	ordered := make([]*node, len(nodes))
	for _, n := range slices.Backward(nodes) {
		ends[n.batch]--
		ordered[ends[n.batch]] = n
	}
	return ordered
}
