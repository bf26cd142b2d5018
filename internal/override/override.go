// Package override keeps the rules by which tests override providers: who may override what while an override is in
// force, and which providers it hides.
//
// A [Set] has the overrides of a registry, a [Stack] those of one service. Both are plain values that their owner
// guards. The package knows names and numbers only: what an override does to a provider is its owner's.
package override

import (
	"fmt"
	"slices"
	"strings"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/status"
)

// longestShown bounds a name in the text of an error, in bytes.
const longestShown = 64

// Override is one change that a test has made. An override of a service hides all its providers but those of the same
// or a later override; one of a provider replaces it.
type Override struct {
	// Owner is its owner, such as the name of the test. ID tells overrides of services apart, whose later ones have
	// greater numbers; zero for one of a provider.
	Owner string
	ID    uint64

	of status.ProviderID // without a name: the whole service
}

// what names that which is overridden.
func (o *Override) what() string {
	service := fmt.Sprintf("service %q", oneline.Cut(o.of.Service, longestShown))
	if o.of.Name == "" {
		return service
	}
	return fmt.Sprintf("provider %q of %s", oneline.Cut(o.of.Name, longestShown), service)
}

// Set has the overrides in force in a registry, oldest first.
type Set struct {
	inForce []*Override
	last    uint64
}

// Begin puts an override in force: of a provider or, without a name, of the whole service. It refuses owners other than
// those of the overrides in force and their parts, such as subtests: concurrent tests would see the providers of one
// another.
func (s *Set) Begin(owner string, of status.ProviderID) (*Override, *check.Violation) {
	for _, other := range s.inForce {
		if owner != other.Owner && !strings.HasPrefix(owner, other.Owner+"/") {
			return nil, check.Refuse("by", owner, fmt.Sprintf(
				"%q or a part of it, which overrides %s: concurrent tests need a registry of their own",
				oneline.Cut(other.Owner, longestShown), other.what(),
			))
		}
	}
	o := &Override{Owner: owner, of: of}
	if of.Name == "" {
		s.last++
		o.ID = s.last
	}
	s.inForce = append(s.inForce, o)
	return o, nil
}

// End ends an override; false when it has ended before.
func (s *Set) End(o *Override) bool {
	before := len(s.inForce)
	s.inForce = slices.DeleteFunc(s.inForce, func(other *Override) bool { return other == o })
	return len(s.inForce) < before
}

// CheckName refuses the name of a provider that is overridden, or was until it left: a test would speak to another
// provider without noticing.
func (s *Set) CheckName(id status.ProviderID) *check.Violation {
	for _, o := range s.inForce {
		if o.of == id && id.Name != "" {
			return check.Refuse("Name", id.Name,
				fmt.Sprintf("a name that is not swapped; %q has swapped it", oneline.Cut(o.Owner, longestShown)))
		}
	}
	return nil
}

// Stack has the overrides in force of one service, oldest first.
type Stack []*Override

// Push adds the latest override.
func (s *Stack) Push(o *Override) { *s = append(*s, o) }

// Remove removes an override, wherever it is.
func (s *Stack) Remove(o *Override) {
	*s = slices.DeleteFunc(*s, func(other *Override) bool { return other == o })
}

// Hides returns the reason why a provider is not picked, however healthy it is; nil: the overrides do not hide it. id
// is that of the override that has registered it, zero for none.
func (s *Stack) Hides(id uint64) *refusal.Reason {
	for _, o := range slices.Backward(*s) {
		if o.ID > id {
			return refusal.Overridden(o.Owner)
		}
	}
	return nil
}

// DomainKey returns the key of a shared failure domain. Overrides share domains of their own.
func DomainKey(name string, ofTest bool) string {
	if name == "" || !ofTest {
		return name
	}
	return "\x00" + name // no name of a registration begins so
}
