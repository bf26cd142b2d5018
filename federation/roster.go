package federation

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/capreg/registry/internal/oneline"
)

// NodeState says how a source sees a node.
type NodeState string

// The states of a node. A node that has left is not there.
//
//	from \ event | lease: serving | lease: leaving | lease deleted | store: not renewed   | deadline, store asked again
//	-------------+----------------+----------------+---------------+----------------------+----------------------------
//	(none)       | present        | draining       | –             | –                    | –
//	joining      | present        | draining       | left          | left                 | –
//	present      | present        | draining       | suspect       | suspect              | –
//	suspect      | present        | draining       | suspect       | suspect              | evicted
//	draining     | present        | draining       | left          | left                 | –
//	evicted      | present        | draining       | left          | evicted              | –
//
// A lease of the phase joining makes a node without a lease, or of another incarnation, joining, and leaves any other as it is.
// One that is told again without having been renewed changes nothing. A lease that a store without its data lacks counts as one that was not renewed. A listed node is present while its list can
// be read, and suspect while it cannot.
const (
	// NodeJoining is a node whose records are not complete yet. None of them is seen.
	NodeJoining NodeState = "joining"
	// NodePresent is a node that renews its lease.
	NodePresent NodeState = "present"
	// NodeSuspect is a node that did not renew its lease. Its providers are still called.
	NodeSuspect NodeState = "suspect"
	// NodeDraining is a node that is about to leave. It gets no new calls.
	NodeDraining NodeState = "draining"
	// NodeEvicted is a node that did not renew its lease for too long. It comes back with its lease.
	NodeEvicted NodeState = "evicted"
)

// providerID names a provider in the fleet.
type providerID struct {
	node string
	title
}

// item is the record of a provider, or the reason why that was refused.
type item struct {
	entry   Entry
	refused error
	missing bool // a store that was read again lacks it
	sum     uint64
}

// node holds all that the roster knows of one.
type node struct {
	state    NodeState
	lease    Lease
	text     string // of the lease, as the store has it; empty if the lease is of no store
	revision uint64
	missing  bool      // as of an item
	behind   bool      // the store has a newer lease than the watch has told
	listed   bool      // by a Listing: it has no lease
	since    time.Time // when it came into its state
	heard    time.Time // when its lease was renewed, as far as it is known here
	deadline time.Time // when a suspect is evicted; zero: never
	why      string    // it is a suspect
	// lives has the records by incarnation and name. Those of others than the lease's wait for theirs, or are left over.
	lives map[string]map[title]*item
	// sums has the sums of the hashes of those, so that a lease that is renewed costs the same whatever the node offers.
	sums   map[string]uint64
	untidy bool // it may have records that are missing, or of another incarnation than the lease's
	// doubt is by how much the sum of the last lease differs from that of the records, and known the difference that the store
	// has itself, as it was read with it.
	doubt, known uint64
}

// roster is the state machine of a source: what it has heard, and what follows from that. It has no clock and no lock.
type roster struct {
	most      int // records
	count     int // records
	beyond    int // records that were left out, as there were so many
	nodes     map[string]*node
	reading   bool // the store is being read from the start
	reachable bool
	ill       map[string]error // leases that were refused, by key
	changed   map[providerID]struct{}
}

func newRoster(most int) *roster {
	return &roster{most: most, nodes: map[string]*node{}, ill: map[string]error{}, changed: map[providerID]struct{}{}}
}

// takeChanged returns the providers that may be seen differently than before, by node and name.
func (r *roster) takeChanged() []providerID {
	ids := slices.SortedFunc(maps.Keys(r.changed), func(a, b providerID) int {
		return cmp.Or(cmp.Compare(a.node, b.node), a.compare(b.title))
	})
	clear(r.changed)
	return ids
}

func (r *roster) of(name string) *node {
	n := r.nodes[name]
	if n == nil {
		n = &node{lives: map[string]map[title]*item{}, sums: map[string]uint64{}}
		r.nodes[name] = n
	}
	return n
}

// touch notes that all providers of the node may be seen differently.
func (r *roster) touch(name string, n *node) {
	for _, life := range n.lives {
		for provider := range life {
			r.changed[providerID{name, provider}] = struct{}{}
		}
	}
}

func (r *roster) enter(name string, n *node, state NodeState, now time.Time) {
	if n.state != state {
		n.state, n.since = state, now
		r.touch(name, n)
	}
	if state != NodeSuspect {
		n.deadline, n.why = time.Time{}, ""
	}
}

func (r *roster) suspect(name string, n *node, why string, until, now time.Time) {
	if n.state != NodeSuspect {
		r.enter(name, n, NodeSuspect, now)
		n.deadline, n.why = until, why
	}
}

func (r *roster) leave(name string, n *node) {
	r.touch(name, n)
	for _, life := range n.lives {
		r.count -= len(life)
	}
	delete(r.nodes, name)
}

// drop forgets the records of a node that the function accepts.
func (r *roster) drop(name string, n *node, accept func(incarnation string, of *item) bool) {
	for incarnation, life := range n.lives {
		for provider, of := range life {
			if accept(incarnation, of) {
				delete(life, provider)
				n.sums[incarnation] -= of.sum
				r.count--
				r.changed[providerID{name, provider}] = struct{}{}
			}
		}
		n.forget(incarnation)
	}
}

// forget forgets an incarnation without records.
func (n *node) forget(incarnation string) {
	if len(n.lives[incarnation]) == 0 {
		delete(n.lives, incarnation)
		delete(n.sums, incarnation)
	}
}

// leased notes the lease of a node. It reports whether the watch has to begin again, as it misses what the store has.
func (r *roster) leased(l *Lease, revision uint64, now time.Time) (stale bool) {
	n := r.of(l.Node)
	another := n.lease.Incarnation != l.Incarnation
	n.lease, n.revision, n.heard, n.missing, n.behind = *l, revision, now, false, false
	if another {
		n.untidy = true
		r.touch(l.Node, n)
	}
	switch l.Phase {
	case Leaving:
		r.enter(l.Node, n, NodeDraining, now)
	case Joining:
		if another || n.state == "" {
			r.enter(l.Node, n, NodeJoining, now)
		} else if n.state == NodeSuspect {
			n.deadline = now.Add(l.TTL)
		}
	case Serving:
		r.enter(l.Node, n, NodePresent, now)
		if !r.reading {
			r.tidy(l.Node, n)
			return n.doubts()
		}
	}
	return false
}

// reread notes that the store, read from the start again, has the lease that is known: the node is there as before, and has not renewed it.
func (n *node) reread() { n.missing, n.behind = false, false }

// doubts compares the records with the sum of the lease. It reports whether they have differed by as much twice in a row, and
// not when the store was read: a record that is being written makes a difference once, one that was lost for good.
func (n *node) doubts() bool {
	differs := n.lease.Sum - n.sums[n.lease.Incarnation]
	again := differs == n.doubt
	n.doubt = differs
	if differs == 0 || differs == n.known || !again {
		return false
	}
	n.known = differs
	return true
}

// tidy forgets what the complete records of a node do not have any more.
func (r *roster) tidy(name string, n *node) {
	if !n.untidy {
		return
	}
	n.untidy = false
	r.drop(name, n, func(incarnation string, of *item) bool {
		return incarnation != n.lease.Incarnation || of.missing
	})
}

// leaseGone notes that a lease was deleted.
func (r *roster) leaseGone(name string, now time.Time) {
	n := r.nodes[name]
	if n == nil {
		return
	}
	switch n.state {
	case NodePresent, NodeSuspect: // it did not say that it leaves
		n.missing = true
		r.suspect(name, n, "its lease was deleted", now.Add(n.lease.TTL/2), now)
	default:
		r.leave(name, n)
	}
}

// put notes the record of a provider.
func (r *roster) put(name, incarnation string, provider title, of *item) {
	n := r.of(name)
	n.untidy = n.untidy || incarnation != n.lease.Incarnation
	life := n.lives[incarnation]
	if life == nil {
		life = map[title]*item{}
		n.lives[incarnation] = life
	}
	if before := life[provider]; before != nil {
		n.sums[incarnation] -= before.sum
	} else if r.count++; r.count > r.most {
		r.count--
		r.beyond++
		return
	}
	life[provider] = of
	n.sums[incarnation] += of.sum
	r.changed[providerID{name, provider}] = struct{}{}
}

// gone notes that the record of a provider was deleted.
func (r *roster) gone(name, incarnation string, provider title) {
	n := r.nodes[name]
	if n == nil {
		return
	}
	if of := n.lives[incarnation][provider]; of != nil {
		delete(n.lives[incarnation], provider)
		n.sums[incarnation] -= of.sum
		r.count--
		r.changed[providerID{name, provider}] = struct{}{}
	}
	if n.state == "" {
		if n.forget(incarnation); len(n.lives) == 0 {
			delete(r.nodes, name)
		}
	}
}

// begin notes that the store is read from the start: what it does not tell until it is read is missing.
func (r *roster) begin() {
	r.reading, r.beyond = true, 0
	clear(r.ill)
	for _, n := range r.nodes {
		if n.listed {
			continue
		}
		n.missing, n.untidy = true, true
		for _, life := range n.lives {
			for _, of := range life {
				of.missing = true
			}
		}
	}
}

// read notes that the store was read.
func (r *roster) read(now time.Time) {
	r.reading = false
	r.back(now)
	for name, n := range r.nodes {
		switch {
		case n.listed:
		case n.state == "":
			r.drop(name, n, func(_ string, of *item) bool { return of.missing })
		case !n.missing:
			if n.lease.Phase == Serving {
				r.tidy(name, n)
			}
		case n.state == NodePresent:
			r.suspect(name, n, "the store has no lease of it", now.Add(n.lease.TTL), now) // it has to find that out, too
		case n.state == NodeSuspect:
		default:
			r.leave(name, n)
		}
	}
}

// lost notes that the store cannot be reached: nothing follows from silence until it is back.
func (r *roster) lost() { r.reachable = false }

// back notes that the store can be reached. Nodes may need as long as this source, so all have a whole TTL from now on.
func (r *roster) back(now time.Time) {
	if r.reachable {
		return
	}
	r.reachable = true
	for _, n := range r.nodes {
		if n.listed {
			continue
		}
		n.heard = now
		if n.state == NodeSuspect {
			n.deadline = now.Add(n.lease.TTL)
		}
	}
}

// due returns when the node has to be asked about, or false if it need not be.
func (n *node) due() (time.Time, bool) {
	switch n.state {
	case NodeSuspect:
		return n.deadline, !n.deadline.IsZero()
	case NodeJoining, NodePresent, NodeDraining:
		return n.heard.Add(n.lease.TTL), !n.listed
	default: // it has no lease yet, or is evicted
		return time.Time{}, false
	}
}

// silent returns the nodes to ask the store about, in the order of their names, and when to look again.
func (r *roster) silent(now time.Time) (names []string, next time.Time) {
	for name, n := range r.nodes {
		at, ok := n.due()
		switch {
		case !ok:
		case !at.After(now):
			names = append(names, name)
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	slices.Sort(names)
	return names, next
}

// asked notes the revision of a node's lease that the store has now, zero for none, after the node was silent. It
// reports whether the watch has to begin again, as it misses what the store has.
func (r *roster) asked(name string, revision uint64, now time.Time) (stale bool) {
	n := r.nodes[name]
	if at, ok := n.dueSafe(); !ok || at.After(now) {
		return false // it was heard of while the store was asked
	}
	if revision != 0 && revision != n.revision {
		stale, n.behind = n.behind, true
		n.heard = now
		if n.state == NodeSuspect {
			n.deadline = now.Add(n.lease.TTL)
		}
		return stale
	}
	switch n.state {
	case NodePresent:
		r.suspect(name, n, "it has not renewed its lease", now.Add(n.lease.TTL/2), now)
	case NodeSuspect:
		r.enter(name, n, NodeEvicted, now)
	default:
		r.leave(name, n)
	}
	return false
}

// dueSafe is due for a node that may have left.
func (n *node) dueSafe() (time.Time, bool) {
	if n == nil {
		return time.Time{}, false
	}
	return n.due()
}

// expire evicts the suspects that are listed and whose deadline is over.
func (r *roster) expire(name string, now time.Time) bool {
	n := r.nodes[name]
	if n == nil || !n.listed {
		return false
	}
	r.enter(name, n, NodeEvicted, now)
	return true
}

// listedAll notes the whole list of a node that has no lease.
func (r *roster) listedAll(list *List, now time.Time) {
	n := r.of(list.Node)
	n.listed = true
	n.lease, n.text = Lease{Node: list.Node, Incarnation: list.Incarnation}, ""
	present := make(map[title]bool, len(list.Entries))
	for i := range list.Entries {
		e := list.Entries[i]
		e.Node, e.Incarnation = list.Node, list.Incarnation
		of := &item{entry: e, refused: e.check()}
		if of.refused != nil { // none of it is kept but a name to tell it by
			of.entry = Entry{Node: e.Node, Incarnation: e.Incarnation}
			of.entry.Definition.Name = oneline.Short(e.Definition.Name, longestName)
			of.entry.Definition.Service = oneline.Short(e.Definition.Service, longestName)
		}
		present[of.entry.title()] = true
		r.put(list.Node, list.Incarnation, of.entry.title(), of)
	}
	r.drop(list.Node, n, func(incarnation string, of *item) bool {
		return incarnation != list.Incarnation || !present[of.entry.title()]
	})
	if list.Leaving {
		r.enter(list.Node, n, NodeDraining, now)
		return
	}
	r.enter(list.Node, n, NodePresent, now)
}

// unlisted notes that the list of a node cannot be read.
func (r *roster) unlisted(name, why string, keep time.Duration, now time.Time) {
	n := r.nodes[name]
	if n == nil || n.state != NodePresent && n.state != NodeSuspect {
		return
	}
	if n.state != NodeSuspect {
		r.enter(name, n, NodeSuspect, now)
		if keep > 0 {
			n.deadline = now.Add(keep)
		}
	}
	n.why = why
}

// sees returns the record of a provider, whether it is one to call, and else the reason.
func (r *roster) sees(id providerID) (entry Entry, visible bool, why string) {
	n := r.nodes[id.node]
	if n == nil {
		return Entry{}, false, "no node of that name is known"
	}
	of := n.lives[n.lease.Incarnation][id.title]
	switch {
	case n.state == "":
		return n.any(id.title), false, "the node has no lease"
	case of == nil:
		if other := n.any(id.title); other.Node != "" {
			return other, false, "the record is of another incarnation than the lease of the node"
		}
		return Entry{}, false, "the node offers no provider of that name"
	case of.refused != nil:
		return of.entry, false, short(of.refused)
	case n.state == NodePresent || n.state == NodeSuspect:
		return of.entry, true, ""
	case n.state == NodeJoining:
		return of.entry, false, "the node is joining: its records are not complete"
	case n.state == NodeDraining:
		return of.entry, false, "the node is leaving"
	default:
		return of.entry, false, "the node did not renew its lease, and the store said so twice"
	}
}

// any returns a record of that provider, of whatever incarnation.
func (n *node) any(t title) Entry {
	for _, life := range n.lives {
		if of := life[t]; of != nil {
			return of.entry
		}
	}
	return Entry{}
}
