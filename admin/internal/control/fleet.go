package control

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
)

// Fleet shows the processes that offer providers to each other.
type Fleet interface {
	// View returns what is known at this moment. It asks no other process and blocks for a moment at most. The result is the
	// caller's. It must be safe for concurrent use.
	View() FleetView
}

// FleetView is the fleet as this process sees it.
type FleetView struct {
	// Store names the store that the processes meet in; empty without one.
	Store string `json:"store,omitempty"`
	// Reachable reports whether the store answers, and Cause says why not. Meanwhile all else is what was known before.
	Reachable bool   `json:"reachable"`
	Cause     string `json:"cause,omitempty"`
	// Announcement has the news of this process for the others; nil: it has none.
	Announcement *Announcement `json:"announcement,omitempty"`
	// Nodes are the processes, by their names.
	Nodes []FleetNode `json:"nodes"`
	// Refused has, by its key, why a record of the store was not accepted.
	Refused map[string]string `json:"refused,omitempty"`
	// Beyond counts the records that were left out, as there were too many.
	Beyond int `json:"beyond,omitempty"`
}

// Announcement has the news of this process for the others.
type Announcement struct {
	Node        string `json:"node"`
	State       string `json:"state"`
	Incarnation string `json:"incarnation,omitempty"`
	// Entries counts the providers that are announced, and Pending those whose record is still to be written.
	Entries int `json:"entries"`
	Pending int `json:"pending,omitempty"`
	// Renewed is the time at which the lease was written last; zero before the first.
	Renewed time.Time `json:"renewed,omitzero"`
	Cause   string    `json:"cause,omitempty"`
	// Refused has, by service and name, why a provider that is offered is not announced.
	Refused map[string]string `json:"refused,omitempty"`
}

// FleetNode is one process, as this one sees it.
type FleetNode struct {
	Name string `json:"name"`
	// This reports that it is this process.
	This        bool   `json:"this,omitempty"`
	State       string `json:"state"`
	Suspect     bool   `json:"suspect,omitempty"`
	Incarnation string `json:"incarnation,omitempty"`
	Generation  uint64 `json:"generation,omitempty"`
	// TTL is the time for which its lease holds, such as 10s; empty without one.
	TTL string `json:"ttl,omitempty"`
	// Since is the time from which it is in its state, and Heard that at which it was heard of last; zero: unknown.
	Since time.Time `json:"since,omitzero"`
	Heard time.Time `json:"heard,omitzero"`
	// Reason says why it is suspected here, and SuspectedBy names the other nodes that suspect it.
	Reason      string   `json:"reason,omitempty"`
	SuspectedBy []string `json:"suspected_by,omitempty"`
	// Offers are the providers that it announces.
	Offers []FleetOffer `json:"offers"`
}

// FleetOffer is a provider that a node announces, and what became of it here.
type FleetOffer struct {
	Service string `json:"service,omitempty"`
	Name    string `json:"name"`
	Kind    string `json:"kind,omitempty"`
	Address string `json:"address,omitempty"`
	// Visible reports whether it is a provider of this registry, named As; otherwise Reason says why not.
	Visible bool   `json:"visible"`
	As      string `json:"as,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Suspected reports whether the node is suspected, here or elsewhere.
func (n *FleetNode) Suspected() bool { return n.Suspect || len(n.SuspectedBy) > 0 }

// Visible counts the offers that are providers here.
func (n *FleetNode) Visible() (count int) {
	for i := range n.Offers {
		if n.Offers[i].Visible {
			count++
		}
	}
	return count
}

// Fleet returns what is known of the fleet, with the nodes in the order of their names.
func (c *Control) Fleet() (v FleetView, err error) {
	if c.options.Fleet == nil {
		return v, &Error{Kind: NotFound, Text: "the program has given no fleet"}
	}
	if err := fault.Run(func() error { v = c.options.Fleet.View(); return nil }); err != nil {
		return v, refused(err)
	}
	v.Nodes = slices.Clone(v.Nodes)
	slices.SortFunc(v.Nodes, func(a, b FleetNode) int { return cmp.Compare(a.Name, b.Name) })
	for i := range v.Nodes {
		if v.Nodes[i].Offers == nil {
			v.Nodes[i].Offers = []FleetOffer{}
		}
	}
	return v, nil
}

// FleetPage is a page of the nodes of a fleet.
type FleetPage struct {
	FleetView

	TotalNodes    int    `json:"total_nodes"`
	NextPageToken string `json:"next_page_token,omitempty"`
}

// FleetNodes returns at most limit nodes, those after the name that is the token of the page before. With a name it is that one
// alone.
func (c *Control) FleetNodes(name, token string, limit int) (p FleetPage, err error) {
	p.FleetView, err = c.Fleet()
	if err != nil {
		return p, err
	}
	if name != "" {
		p.Nodes = slices.DeleteFunc(p.Nodes, func(n FleetNode) bool { return n.Name != name })
		if len(p.Nodes) == 0 {
			return p, &Error{Kind: NotFound, Text: fmt.Sprintf("there is no node %q", oneline.Short(name, longestName))}
		}
	}
	p.TotalNodes = len(p.Nodes)
	p.Nodes = slices.DeleteFunc(p.Nodes, func(n FleetNode) bool { return n.Name <= token && token != "" })
	if len(p.Nodes) > limit {
		p.Nodes = p.Nodes[:limit]
		p.NextPageToken = p.Nodes[limit-1].Name
	}
	if p.Nodes == nil {
		p.Nodes = []FleetNode{}
	}
	return p, nil
}
