package overall

import (
	"fmt"
	"slices"
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
// at the root of the chain, and capabilities that no provider has.
func Causes[P comparable](among Dependencies[P], of P) []string {
	search := causeSearch[P]{among: among, of: of, seen: map[P]bool{of: true}}
	search.visit(of)
	slices.Sort(search.causes)
	return slices.Compact(search.causes)
}

// causeSearch collects the reasons why a provider cannot work, along its requirements.
type causeSearch[P comparable] struct {
	among  Dependencies[P]
	of     P
	seen   map[P]bool
	causes []string
}

// visit adds the causes among the requirements of p, and reports whether there are any besides the provider itself.
func (s *causeSearch[P]) visit(p P) (others bool) {
	for _, capability := range s.among.Requires(p) {
		members := s.among.Having(capability)
		switch {
		case len(members) == 0:
			s.causes, others = append(s.causes, fmt.Sprintf("no provider has %q", capability)), true
		case !s.worksIn(members, capability):
			for member := range members {
				others = others || member != s.of
				s.blame(member)
			}
		}
	}
	return others
}

// blame adds a provider that does not work, or the causes among its requirements instead.
func (s *causeSearch[P]) blame(member P) {
	if s.seen[member] {
		return
	}
	s.seen[member] = true
	if !s.visit(member) {
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
