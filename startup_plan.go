package registry

import (
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
	needs  []dependency
	feeds  []feed // the needs of others that look at this one
	batch  int
	rank   time.Duration // of the longest path from here to an end
	absent []startup.Need

	progress
}

// dependency is a need of a node, and how far it is satisfied.
type dependency struct {
	need    startup.Need
	members []*node
	left    int // members that are not settled, or not ready where they must be
	open    bool
}

// feed names a need that looks at a node.
type feed struct {
	node *node
	need int
}

// plan fills in what the nodes need of each other. added are those whose needs are
// new; the others remain as they are. Ranks are made only where somebody asks for
// them.
func planNodes(nodes, added []*node, ranked bool, last *startup.Report) error {
	p := newPlanner(nodes)
	failure := &startup.PlanError{Duplicates: p.duplicates}
	for _, n := range added {
		n.needs, n.absent = nil, nil
		for _, need := range n.c.Needs {
			members := p.providers(n, need)
			switch {
			case len(members) > 0:
				n.needs = append(n.needs, dependency{need: need, members: members})
			case need.Optional || need.OrderOnly:
				n.absent = append(n.absent, need)
			default:
				failure.Missing = append(failure.Missing, p.missing(n, need))
			}
		}
	}
	p.connect(added)
	if left := p.layer(); left > 0 {
		failure.Cycles = p.cycles()
	}
	if len(failure.Missing)+len(failure.Duplicates)+len(failure.Cycles) > 0 {
		disconnect(added)
		return failure
	}
	if ranked {
		p.weigh(last)
	}
	return nil
}

// planner looks names up.
type planner struct {
	nodes        []*node
	byName       map[string]*node
	byCapability map[string][]*node
	duplicates   []string
}

func newPlanner(nodes []*node) *planner {
	p := &planner{nodes: nodes, byName: make(map[string]*node, len(nodes)), byCapability: make(map[string][]*node)}
	for i, n := range nodes {
		n.id = i
		if _, taken := p.byName[n.c.Name]; taken {
			if !slices.Contains(p.duplicates, n.c.Name) {
				p.duplicates = append(p.duplicates, n.c.Name)
			}
			continue
		}
		p.byName[n.c.Name] = n
		for _, capability := range n.c.Provides {
			p.byCapability[capability] = append(p.byCapability[capability], n)
		}
	}
	return p
}

// providers returns who satisfies the need. A component does not satisfy its own,
// unless nobody else does: then it waits for itself.
func (p *planner) providers(of *node, need startup.Need) []*node {
	if need.Component != "" {
		if n, ok := p.byName[need.Component]; ok {
			return []*node{n}
		}
		return nil
	}
	all := p.byCapability[need.Capability]
	if len(all) > 1 && slices.Contains(all, of) {
		all = slices.DeleteFunc(slices.Clone(all), func(n *node) bool { return n == of })
	}
	return all
}

// nearestNames is how many similar names an error suggests.
const nearestNames = 3

func (p *planner) missing(n *node, need startup.Need) startup.Missing {
	var known []string
	wanted := need.Capability
	if need.Component != "" {
		wanted = need.Component
		for name := range p.byName {
			known = append(known, name)
		}
	} else {
		for capability := range p.byCapability {
			known = append(known, capability)
		}
	}
	return startup.Missing{Component: n.c.Name, Need: need, Nearest: graph.Nearest(wanted, known, nearestNames)}
}

// connect tells the members of each need who looks at them.
func (p *planner) connect(added []*node) {
	for _, n := range added {
		for at := range n.needs {
			for _, member := range n.needs[at].members {
				member.feeds = append(member.feeds, feed{n, at})
			}
		}
	}
}

// disconnect undoes connect.
func disconnect(gone []*node) {
	left := make(map[*node]bool, len(gone))
	for _, n := range gone {
		left[n] = true
	}
	for _, n := range gone {
		for _, g := range n.needs {
			for _, member := range g.members {
				member.feeds = slices.DeleteFunc(member.feeds, func(f feed) bool { return left[f.node] })
			}
		}
	}
}

// layer gives each node the batch in which it can start when nothing fails, and
// returns how many never can.
func (p *planner) layer() (left int) {
	const never = -1
	counts := make([][]int, len(p.nodes)) // members that a need still waits for
	pending := make([]int, len(p.nodes))
	var ready []*node
	for i, n := range p.nodes {
		n.batch = never
		pending[i] = len(n.needs)
		if len(n.needs) == 0 {
			ready = append(ready, n)
			continue
		}
		counts[i] = make([]int, len(n.needs))
		for at, g := range n.needs {
			counts[i][at] = len(g.members)
			if g.need.Any {
				counts[i][at] = 1
			}
		}
	}
	left = len(p.nodes)
	for batch := 0; len(ready) > 0; batch++ {
		left -= len(ready)
		var next []*node
		for _, n := range ready {
			n.batch = batch
		}
		for _, n := range ready {
			for _, f := range n.feeds {
				count := &counts[f.node.id][f.need]
				if *count--; *count == 0 {
					if pending[f.node.id]--; pending[f.node.id] == 0 {
						next = append(next, f.node)
					}
				}
			}
		}
		ready = next
	}
	return left
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
					cycle[i].Need = g.need
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
	ranks := p.graph().Ranks(func(id int) time.Duration {
		if last == nil {
			return 1
		}
		return known[p.nodes[id].c.Name] + 1
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
	ordered := slices.Clone(nodes)
	slices.SortStableFunc(ordered, func(a, b *node) int { return a.batch - b.batch })
	var plan startup.Plan
	for _, n := range ordered {
		for len(plan.Batches) <= n.batch {
			plan.Batches = append(plan.Batches, nil)
		}
		plan.Batches[n.batch] = append(plan.Batches[n.batch], n.c.Name)
		step := startup.Step{Name: n.c.Name, Version: n.c.Version, Batch: n.batch + 1, Absent: slices.Clone(n.absent)}
		for _, g := range n.needs {
			for _, member := range g.members {
				step.After = append(step.After, startup.Link{Name: member.c.Name, Need: g.need})
			}
		}
		plan.Steps = append(plan.Steps, step)
	}
	return plan
}
