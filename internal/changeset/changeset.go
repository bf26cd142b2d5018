// Package changeset checks a set of changes of membership as one change: against what will be there afterwards, not
// one change after the other.
//
// So what belongs to a whole group or failure domain (its strategy, its limits) can change together with all its
// members, and a name that one change frees can be taken by another. [Resolve] decides whether a set is consistent and in
// which order it is applied. A [Transaction] makes the changes on its [Host] at one moment, when all newcomers have
// proven themselves, or none of them. The package holds no lock of its own and keeps no member.
package changeset

import (
	"fmt"
	"iter"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

// Kind is the kind of a [Change]. Changes are applied in the order of their kinds, and in the order of the set
// among equals.
type Kind uint8

const (
	// Leave removes a provider.
	Leave Kind = iota
	// Join adds a provider, or puts it in the place of another.
	Join
	// Move moves a provider to another group.
	Move
	// SetStrategy changes the strategy of the group that the provider is in after the set.
	SetStrategy
	// SetLimits changes the limits of the provider's domain.
	SetLimits
	// Set changes a setting that no other provider shares.
	Set
)

// Change is one change of a set.
type Change struct {
	Kind Kind
	Of   status.ProviderID

	Member  Member             // of a Join; Strategy and Limits are what it wants, the zero values whatever there is
	Replace bool               // of a Join
	Group   int                // of a Move
	What    string             // of a Set: the setting
	Wanted  selection.Strategy // of a SetStrategy
	Limits  limit.Policy       // of a SetLimits
}

// Member holds what a provider has in common with others.
type Member struct {
	Group    pick.GroupID
	Strategy selection.Strategy // of the group, or wanted
	Domain   string             // the key of its domain; empty: its own
	Limits   limit.Policy       // wanted
	Mock     bool
	OfTest   bool // it is the work of an override, which mixes mocks with real ones
}

// GroupKey names a group among those of all services.
type GroupKey struct {
	Service string
	ID      pick.GroupID
}

// Shared holds a value that all members of a group or domain have in common. The zero value is that of one that does not exist.
type Shared[V any] struct {
	Value V
	By    status.ProviderID // the member whose registration or change set the value; zero: none did
	Size  int               // its members
}

// World is the membership before the set.
type World interface {
	Member(id status.ProviderID) (m Member, ok bool)
	// Reserved says why no provider can join with the name, such as that a test has swapped it; nil where one can.
	Reserved(id status.ProviderID) *check.Violation
	Group(group GroupKey) Shared[selection.Strategy]
	Domain(key string) Shared[limit.Policy]
	// InGroup and InDomain yield their members.
	InGroup(group GroupKey) iter.Seq[status.ProviderID]
	InDomain(key string) iter.Seq[status.ProviderID]
	// Members yields the members of the service.
	Members(service string) iter.Seq2[status.ProviderID, Member]
}

// Rules hold for every set.
type Rules struct {
	Strategies  pick.Strategies // those that a name stands for
	ForbidMocks bool            // beside real providers of their service
}

// Refusal says why a change cannot be made.
type Refusal struct {
	Index int   // of the change
	Kind  error // one of the sentinels of package fault
	check.Violation
}

// Plan says how a set is applied.
type Plan struct {
	// Order has the indices of the changes in the order in which they are applied.
	Order []int
	// Strategies and Limits are set after that, each for the group or domain of the member: all members that
	// were there before have left, and newcomers bring another value.
	Strategies []Value[selection.Strategy]
	Limits     []Value[limit.Policy]
}

// Value is a value that a member brings.
type Value[V any] struct {
	By    status.ProviderID
	Value V
}

// NameFor returns a name for a provider of the service that was given none, which is not taken. It counts the names that it
// has tried.
func NameFor(service string, count *uint64, taken func(status.ProviderID) bool) string {
	const digits = 24 // with a hyphen
	for {
		*count++
		name := fmt.Sprintf("%s-%d", oneline.Cut(service, check.LongestName-digits), *count)
		if !taken(status.ProviderID{Service: service, Name: name}) {
			return name
		}
	}
}

// Resolve checks the set and returns the way to apply it, or all the changes that cannot be made, with reasons.
func Resolve(world World, changes []Change, rules Rules) (Plan, []Refusal) {
	s := set{world: world, changes: changes, rules: rules}
	s.noteFates()
	s.checkNames()
	if len(s.refused) > 0 {
		return Plan{}, s.refused // what follows would only repeat it
	}
	s.checkMocks()
	s.settleGroups()
	s.settleDomains()
	if len(s.refused) > 0 {
		return Plan{}, s.refused
	}
	for kind := Leave; kind <= Set; kind++ {
		for i := range changes {
			if changes[i].Kind == kind {
				s.plan.Order = append(s.plan.Order, i)
			}
		}
	}
	return s.plan, nil
}
