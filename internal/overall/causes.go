package overall

import (
	"fmt"
	"slices"
	"strings"
)

// Dependencies describes what the providers of type P need of each other.
type Dependencies[P comparable] interface {
	// Name returns the name of a provider.
	Name(p P) string
	// Requires returns the capabilities that a provider needs of others.
	Requires(p P) []string
	// Having returns the providers that have a capability.
	Having(capability string) map[P]struct{}
	// Works reports whether a capability works in a provider that has it.
	Works(p P, capability string) bool
}

// Causes returns the providers that one requires and that are the reason why it cannot work, as far as is known: those
// at the root of the chain, and capabilities that no provider has. The list is not to be changed. What providers need is
// searched once for all that need it, until the version changes, and not at all from a provider that is not asked about.
type Causes[P comparable] struct {
	version      uint64
	byCapability map[string]found[P]
	byNeeds      map[string][]string
}

// found is the result of a search from one capability.
type found[P comparable] struct {
	causes []string
	seen   map[P]bool
}

// Of returns the causes of a provider. Dependencies that have changed have another version. The zero value of Causes is
// ready to use, by one goroutine at a time.
func (c *Causes[P]) Of(of P, among Dependencies[P], version uint64) []string {
	if c.byNeeds == nil || c.version != version {
		c.version, c.byCapability, c.byNeeds = version, make(map[string]found[P]), make(map[string][]string)
	}
	needs := among.Requires(of)
	var all []found[P]
	for _, capability := range needs {
		one, known := c.byCapability[capability]
		if !known {
			one = search(among, capability)
			c.byCapability[capability] = one
		}
		if one.seen[of] { // what it needs needs it: the provider itself is no cause
			return searchFrom(among, of)
		}
		all = append(all, one)
	}
	key := strings.Join(needs, "\x00")
	causes, known := c.byNeeds[key]
	if !known {
		for _, one := range all {
			causes = append(causes, one.causes...)
		}
		slices.Sort(causes)
		causes = slices.Compact(causes)
		c.byNeeds[key] = causes
	}
	return causes
}

// search searches from a capability.
func search[P comparable](among Dependencies[P], capability string) found[P] {
	s := causeSearch[P]{among: among, seen: make(map[P]bool)}
	s.visitCapability(capability, nil)
	return found[P]{s.causes, s.seen}
}

// searchFrom searches from a provider that may be among those that it needs.
func searchFrom[P comparable](among Dependencies[P], of P) []string {
	s := causeSearch[P]{among: among, seen: map[P]bool{of: true}}
	s.visit(of, &of)
	slices.Sort(s.causes)
	return slices.Compact(s.causes)
}

// causeSearch collects the reasons why a provider cannot work, along its requirements.
type causeSearch[P comparable] struct {
	among  Dependencies[P]
	seen   map[P]bool
	causes []string
}

// visit adds the causes among the requirements of p, and reports whether there are any besides of, which may be nil.
func (s *causeSearch[P]) visit(p P, of *P) (others bool) {
	for _, capability := range s.among.Requires(p) {
		others = s.visitCapability(capability, of) || others
	}
	return others
}

func (s *causeSearch[P]) visitCapability(capability string, of *P) (others bool) {
	members := s.among.Having(capability)
	switch {
	case len(members) == 0:
		s.causes, others = append(s.causes, fmt.Sprintf("no provider has %q", capability)), true
	case !s.worksIn(members, capability):
		for member := range members {
			others = others || of == nil || member != *of
			s.blame(member, of)
		}
	}
	return others
}

// blame adds a provider that does not work, or the causes among its requirements instead.
func (s *causeSearch[P]) blame(member P, of *P) {
	if s.seen[member] {
		return
	}
	s.seen[member] = true
	if !s.visit(member, of) {
		s.causes = append(s.causes, s.among.Name(member))
	}
}

// worksIn reports whether a capability works in one of the providers that have it.
func (s *causeSearch[P]) worksIn(members map[P]struct{}, capability string) bool {
	for member := range members {
		if s.among.Works(member, capability) {
			return true
		}
	}
	return false
}
