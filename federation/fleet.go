package federation

import (
	"maps"
	"slices"
	"time"

	"github.com/capreg/registry/internal/jsonform"
)

// Fleet holds all that a source knows of other nodes at one moment.
type Fleet struct {
	// Store names the store; empty without one.
	Store string `json:"store,omitempty"`
	// Reachable reports whether the store can be reached, as far as it was tried; Cause says why not. While it
	// cannot be reached, all else is what was known before.
	Reachable bool   `json:"reachable"`
	Cause     string `json:"cause,omitempty"`
	// Nodes are the nodes by their names, this one too.
	Nodes []Node `json:"nodes"`
	// Refused has, by its key, why a record was not accepted that is not one of a known provider; at most 256.
	Refused map[string]string `json:"refused,omitempty"`
	// Beyond counts the records that were left out since the store was read, as there were more than
	// [SourceOptions.MaxEntries].
	Beyond int `json:"beyond,omitempty"`
}

// Node is a node as a source sees it.
type Node struct {
	Name        string    `json:"name"`
	State       NodeState `json:"state"`
	Incarnation string    `json:"incarnation,omitempty"`
	Generation  uint64    `json:"generation,omitempty"`
	// TTL is that of its lease; zero for one that is listed.
	TTL time.Duration `json:"ttl,omitempty"`
	// InState is for how long it is in the state, and Silent for how long it was not heard of.
	InState time.Duration `json:"in_state"`
	Silent  time.Duration `json:"silent"`
	// Reason says why it is a suspect.
	Reason string `json:"reason,omitempty"`
	// SuspectedBy names the other nodes that say in their leases that they suspect it.
	SuspectedBy []string `json:"suspected_by,omitempty"`
	// Offers are its providers by name.
	Offers []Offered `json:"offers"`
}

// MarshalJSON returns the fields by their tags, with durations as text.
func (n Node) MarshalJSON() ([]byte, error) { return jsonform.Marshal(n) }

// UnmarshalJSON reads what MarshalJSON writes. The error names the field and matches registry.ErrInvalid.
func (n *Node) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, n) }

// Offered is a provider that a node offers, and what became of it in the registry of a source.
type Offered struct {
	Node    string `json:"node"`
	Name    string `json:"name"`
	Service string `json:"service,omitempty"`
	Kind    string `json:"kind,omitempty"`
	Address string `json:"address,omitempty"`
	// Visible reports whether it is a provider of the registry, under the name As. Whether that would get a call is said by
	// registry.Resolver.Explain.
	Visible bool   `json:"visible"`
	As      string `json:"as,omitempty"`
	// Reason says why it is not visible.
	Reason string `json:"reason,omitempty"`
}

// Fleet returns what is known now. It asks nothing, and changes nothing.
func (s *Source) Fleet() Fleet {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	f := Fleet{Reachable: s.roster.reachable, Beyond: s.roster.beyond, Nodes: []Node{}}
	if s.options.Store != nil {
		f.Store = s.options.Store.String()
	}
	if s.cause != nil {
		f.Cause = short(s.cause)
	}
	for key, err := range s.roster.ill {
		if f.Refused == nil {
			f.Refused = map[string]string{}
		}
		f.Refused[key] = short(err)
	}
	suspectedBy := map[string][]string{}
	for name, n := range s.roster.nodes {
		for _, suspect := range n.lease.Suspects {
			suspectedBy[suspect] = append(suspectedBy[suspect], name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.roster.nodes)) {
		f.Nodes = append(f.Nodes, s.node(name, suspectedBy[name], now))
	}
	return f
}

// node returns the view of one node, with mu held.
func (s *Source) node(name string, suspectedBy []string, now time.Time) Node {
	n := s.roster.nodes[name]
	slices.Sort(suspectedBy)
	view := Node{
		Name: name, State: n.state, Incarnation: n.lease.Incarnation, Generation: n.lease.Generation, TTL: n.lease.TTL,
		Reason: n.why, SuspectedBy: suspectedBy, Offers: []Offered{},
	}
	if !n.since.IsZero() {
		view.InState = now.Sub(n.since)
	}
	if !n.heard.IsZero() {
		view.Silent = now.Sub(n.heard)
	}
	offers := map[title]bool{}
	for _, life := range n.lives {
		for provider := range life {
			offers[provider] = true
		}
	}
	for _, provider := range slices.SortedFunc(maps.Keys(offers), title.compare) {
		view.Offers = append(view.Offers, s.explain(providerID{name, provider}))
	}
	return view
}

// Explain says whether the provider of that service and name at a node is seen here, and else why not. It asks nothing, and changes nothing.
func (s *Source) Explain(node, service, provider string) Offered {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.explain(providerID{node, title{service, provider}})
}

// explain is Explain with mu held.
func (s *Source) explain(id providerID) Offered {
	entry, visible, why := s.roster.sees(id)
	o := Offered{
		Node: id.node, Name: id.name, Service: id.service, Kind: entry.Kind, Address: entry.Address, Reason: why,
	}
	was := s.brought[id]
	switch {
	case id.node == s.options.Node && id.node != "":
		o.Reason = "the node is this one"
	case why == "" && (was == nil || !visible):
		o.Reason = "it is about to be registered"
	case was == nil || !visible:
	case was.refused != nil:
		o.Reason = short(was.refused)
	case hasLeft(was.registration):
		o.Reason = "it was removed here; it comes back when its node offers it otherwise"
	default:
		o.Visible, o.As = true, was.name
	}
	if !o.Visible && !s.roster.reachable && s.options.Store != nil {
		o.Reason += "; the store cannot be reached"
		if s.cause != nil {
			o.Reason += ": " + short(s.cause)
		}
	}
	return o
}

// Suspects returns the names of the nodes that are suspects here, sorted.
func (s *Source) Suspects() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, n := range s.roster.nodes {
		if n.state == NodeSuspect && !n.listed {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names[:min(len(names), mostSuspects)]
}
