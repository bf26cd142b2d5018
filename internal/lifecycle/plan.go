package lifecycle

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/capreg/registry/internal/graph"
	"github.com/capreg/registry/startup"
)

// dependency is a need of a node.
type dependency struct {
	word      string  // the capability, or the name of the component
	members   []*node // that can satisfy it
	unknown   int32   // members without an outcome
	unbatched int32   // members without a batch; while planning
	status    needStatus

	named, any, optional, orderOnly bool // named: by its component
}

func newDependency(need *startup.Need, members []*node) dependency {
	return dependency{
		word: cmp.Or(need.Component, need.Capability), members: members, named: need.Component != "",
		any: need.Any, optional: need.Optional, orderOnly: need.OrderOnly,
	}
}

// need returns the need as users have written it.
func (d *dependency) need() startup.Need {
	need := startup.Need{Capability: d.word, Any: d.any, Optional: d.optional, OrderOnly: d.orderOnly}
	if d.named {
		need.Capability, need.Component = "", d.word
	}
	return need
}

// dependant is a need of another node that has this one as a member.
type dependant struct {
	node *node
	need int // the position in its needs
}

func (d dependant) dependency() *dependency { return &d.node.needs[d.need] }

// blocksRemoval reports whether the member cannot be removed: it is needed, or those that are left of several
// could wait for each other.
func (d dependant) blocksRemoval() bool { return !d.dependency().orderOnly || d.dependency().any }

// addToPlan adds components to the plan; on an error nothing has changed.
func (e *Engine) addToPlan(components []Component) (added []*node, err error) {
	nodes := append(slices.Clip(e.nodes), make([]*node, len(components))...)
	added = nodes[len(e.nodes):]
	made := make([]node, len(components)) // one allocation for all
	for i := range components {
		made[i].c = &components[i]
		added[i] = &made[i]
	}
	p := newPlanner(nodes)
	if err := p.connect(added); err != nil {
		return nil, err
	}
	if e.options.MaxConcurrent > 0 {
		p.rank(e.options.Last)
	}
	e.nodes, e.names, e.anyOf = nodes, p.names, e.anyOf || p.anyOf
	return added, nil
}

// removeFromPlan removes nodes from the plan.
func (e *Engine) removeFromPlan(gone []*node) {
	disconnect(gone)
	e.nodes = slices.DeleteFunc(slices.Clone(e.nodes), setOf(gone).has)
	p := newPlanner(e.nodes)
	p.assignBatches() // nodes that only came after the others are in earlier batches now
	e.names = p.names
}

// nodeSet is a set of nodes.
type nodeSet map[*node]struct{}

func setOf(nodes []*node) nodeSet {
	set := make(nodeSet, len(nodes))
	for _, n := range nodes {
		set[n] = struct{}{}
	}
	return set
}

func (s nodeSet) has(n *node) bool {
	_, ok := s[n]
	return ok
}

// names has what each word stands for. One map is for the names of components and for capabilities, which are
// often the same words.
type names map[string]owners

// owners are positions in a plan, each one more than it is, so that zero is none.
type owners struct {
	component int32 // the component of that name
	provider  int32 // the only provider of the capability; negative: a position in planner.several
}

// planner resolves needs and gives nodes their batches.
type planner struct {
	nodes      []*node
	names      names
	several    [][]*node // the providers of each capability that has more than one, in the order of the plan
	duplicates []string  // names of more than one component
	anyOf      bool      // a need that was resolved is satisfied by any of several
}

func newPlanner(nodes []*node) *planner {
	p := &planner{nodes: nodes, names: make(names, len(nodes))}
	for i, n := range nodes {
		n.id = int32(i)
		known, at := len(p.names), int32(i+1)
		o := owners{component: at}
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
				p.names[capability] = p.addProvider(p.names[capability], n)
			}
		}
	}
	return p
}

// addProvider returns the owners of a capability with one provider more.
func (p *planner) addProvider(o owners, n *node) owners {
	if o.provider == 0 {
		o.provider = n.id + 1
		return o
	}
	if o.provider > 0 {
		p.several = append(p.several, []*node{p.nodes[o.provider-1]})
		o.provider = -int32(len(p.several)) //nolint:gosec // there is no memory for more
	}
	all := &p.several[-o.provider-1]
	at, _ := slices.BinarySearchFunc(*all, n.id, func(other *node, id int32) int { return int(other.id - id) })
	*all = slices.Insert(*all, at, n) // a component of that name may come later in the plan, and is there first
	return o
}

// only returns the node at a position of [owners].
func (p *planner) only(at int32) []*node {
	if at == 0 {
		return nil
	}
	return p.nodes[at-1 : at : at]
}

// providers returns the nodes that can satisfy a need. A component does not satisfy its own need unless it is
// the only provider, which is a cycle; an optional need has no provider then.
func (p *planner) providers(of *node, need *startup.Need) []*node {
	if need.Component != "" {
		return p.only(p.names[need.Component].component)
	}
	o := p.names[need.Capability]
	if o.provider >= 0 {
		if need.Optional && o.provider == of.id+1 {
			return nil
		}
		return p.only(o.provider)
	}
	all := p.several[-o.provider-1]
	if slices.Contains(all, of) {
		all = slices.DeleteFunc(slices.Clone(all), func(n *node) bool { return n == of })
	}
	return all
}

// connect resolves the needs of the nodes that are added and gives every node its batch. On an error nothing
// has changed.
func (p *planner) connect(added []*node) error {
	failure := &startup.PlanError{Duplicates: p.duplicates}
	failure.Missing = p.resolve(added)
	p.link(added)
	if p.assignBatches() > 0 {
		failure.Cycles = p.cycles()
	}
	if len(failure.Missing)+len(failure.Duplicates)+len(failure.Cycles) > 0 {
		disconnect(added)
		return failure
	}
	return nil
}

// resolve fills in the needs of nodes, and returns those without a provider.
func (p *planner) resolve(added []*node) (missing []startup.Missing) {
	count := 0
	for _, n := range added {
		count += len(n.c.Needs)
	}
	all := make([]dependency, 0, count) // one allocation for all
	for _, n := range added {
		first := len(all)
		for i := range n.c.Needs {
			need := &n.c.Needs[i]
			members := p.providers(n, need)
			p.anyOf = p.anyOf || need.Any
			switch {
			case len(members) > 0:
				all = append(all, newDependency(need, members))
			case need.Optional || need.OrderOnly:
				x := n.more()
				x.absent = append(x.absent, *need)
			default:
				missing = append(missing, p.missing(n, *need, len(missing) < maxSuggestions))
			}
		}
		n.needs, n.c.Needs = all[first:len(all):len(all)], nil
	}
	return missing
}

// An error suggests so many similar names for each missing one; for more missing ones than that it suggests
// none, since the search takes time.
const suggestedNames, maxSuggestions = 3, 100

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
	return startup.Missing{Component: n.c.Name, Need: need, Nearest: graph.Nearest(wanted, known, suggestedNames)}
}

// link makes the added nodes dependants of the members of their needs, and reserves space for what each uses.
// All nodes share one allocation for either.
func (p *planner) link(added []*node) {
	members := p.reserveDependants(added)
	uses := make([]*node, 0, members)
	for _, n := range added {
		first := len(uses)
		for at := range n.needs {
			uses = append(uses, n.needs[at].members...)
			for _, member := range n.needs[at].members {
				member.dependants = append(member.dependants, dependant{n, at})
			}
		}
		n.uses = uses[first:first:len(uses)]
	}
}

// reserveDependants reserves space for the dependants that the added nodes will be, and returns their number.
func (p *planner) reserveDependants(added []*node) (members int) {
	counts := make([]int32, len(p.nodes))
	for _, n := range added {
		for at := range n.needs {
			members += len(n.needs[at].members)
			for _, member := range n.needs[at].members {
				counts[member.id]++
			}
		}
	}
	dependants := make([]dependant, 0, members)
	for i := range counts {
		count := int(counts[i])
		if n := p.nodes[i]; count > 0 && len(n.dependants) == 0 {
			n.dependants = dependants[len(dependants) : len(dependants) : len(dependants)+count]
			dependants = dependants[:len(dependants)+count]
		}
	}
	return members
}

// disconnect undoes connect, in both directions.
func disconnect(gone []*node) {
	set := setOf(gone)
	for _, n := range gone {
		for i := range n.needs {
			for _, member := range n.needs[i].members {
				member.dependants = slices.DeleteFunc(member.dependants, func(d dependant) bool { return set.has(d.node) })
			}
		}
		for _, d := range n.dependants { // those that only came after it
			need := d.dependency()
			need.members = slices.DeleteFunc(slices.Clone(need.members), set.has)
		}
	}
}

// noBatch is the batch of a node that has none.
const noBatch = -1

// assignBatches gives each node the batch in which it can start when nothing fails, and returns how many nodes never
// can.
func (p *planner) assignBatches() (never int) {
	order := make([]*node, 0, len(p.nodes))
	for _, n := range p.nodes {
		n.countUnbatched()
		if n.unbatched == 0 {
			n.batch = 0
			order = append(order, n)
		}
	}
	for at := 0; at < len(order); at++ { // it grows meanwhile
		for _, d := range order[at].dependants {
			need := d.dependency()
			if need.unbatched--; need.unbatched != 0 {
				continue
			}
			if d.node.unbatched--; d.node.unbatched == 0 {
				d.node.batch = order[at].batch + 1
				order = append(order, d.node)
			}
		}
	}
	return len(p.nodes) - len(order)
}

// countUnbatched takes a node out of its batch, and counts the needs that have to get one before it.
func (n *node) countUnbatched() {
	n.batch, n.unbatched = noBatch, 0
	for at := range n.needs {
		need := &n.needs[at]
		need.unbatched = int32(len(need.members)) //nolint:gosec // there is no memory for more
		if need.any {
			need.unbatched = min(need.unbatched, 1)
		}
		if need.unbatched > 0 {
			n.unbatched++
		}
	}
}

// cycles returns why some nodes have no batch.
func (p *planner) cycles() []startup.Cycle {
	g := graph.New(len(p.nodes))
	for _, n := range p.nodes {
		if n.batch != noBatch {
			continue
		}
		for _, need := range n.needs {
			for _, member := range need.members {
				if member.batch == noBatch {
					g.Add(int(member.id), int(n.id))
				}
			}
		}
	}
	var all []startup.Cycle
	for _, found := range g.Cycles() {
		slices.Reverse(found[1:]) // of the graph, each comes before the next; of a report, each needs the next
		cycle := make(startup.Cycle, len(found))
		for i, id := range found {
			n, needed := p.nodes[id], p.nodes[found[(i+1)%len(found)]]
			cycle[i] = startup.Link{Name: n.c.Name, Need: n.needOf(needed)}
		}
		all = append(all, cycle)
	}
	return all
}

// needOf returns the first need of n that another node can satisfy.
func (n *node) needOf(other *node) startup.Need {
	for _, need := range n.needs {
		if slices.Contains(need.members, other) {
			return need.need()
		}
	}
	return startup.Need{}
}

// rank gives each node the length of the longest path from it to an end, by the durations of an earlier start
// where there is one.
func (p *planner) rank(last *startup.Report) {
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

// graph returns the needs that the batches follow: without those that another member satisfies sooner.
func (p *planner) graph() *graph.Graph {
	g := graph.New(len(p.nodes))
	for _, n := range p.nodes {
		for _, need := range n.needs {
			for _, member := range need.members {
				if member.batch < n.batch {
					g.Add(int(member.id), int(n.id))
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
		for len(plan.Batches) <= int(n.batch) {
			plan.Batches = append(plan.Batches, nil)
		}
		plan.Batches[n.batch] = append(plan.Batches[n.batch], n.c.Name)
		step := startup.Step{Name: n.c.Name, Version: n.c.Version, Kind: n.c.Kind, Completes: n.c.Completes, Batch: int(n.batch) + 1}
		if n.extras != nil {
			step.Absent = slices.Clone(n.extras.absent)
		}
		for _, need := range n.needs {
			for _, member := range need.members {
				step.After = append(step.After, startup.Link{Name: member.c.Name, Need: need.need()})
			}
		}
		plan.Steps = append(plan.Steps, step)
	}
	return plan
}

// inBatches returns the nodes in the order of their batches, and of the plan within each.
func inBatches(nodes []*node) []*node {
	var ends []int // of each batch, the position after its last node
	for _, n := range nodes {
		for len(ends) <= int(n.batch) {
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
