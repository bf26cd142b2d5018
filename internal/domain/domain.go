// Package domain groups members into failure domains: members behind one key, host or GPU share their limits and a
// cooldown.
//
// A [Domain] and a [Set] are plain values: their owner guards them. The package decides who shares what; what a
// member does about it, when its domain cools down or gets other limits, is its owner's. It never calls a member.
package domain

import (
	"maps"
	"slices"

	"github.com/capreg/registry/internal/cooldown"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// Domain is one failure domain. Use [Set.Join] to create one.
type Domain[M comparable] struct {
	// Cooldown keeps all members away.
	Cooldown cooldown.Timed

	key      string            // "" for a domain of one
	only     M                 // of a domain of one
	members  map[M]struct{}    // nil for a domain of one
	limits   *limit.Limits     // nil: none
	limitsBy status.ProviderID // the member whose registration or change set the limits
}

// Members returns the members, in no order.
func (d *Domain[M]) Members() []M {
	if d.members == nil {
		return []M{d.only}
	}
	return slices.Collect(maps.Keys(d.members))
}

// Each yields the members, in no order.
func (d *Domain[M]) Each(yield func(M) bool) {
	for _, m := range d.Members() {
		if !yield(m) {
			return
		}
	}
}

// Size returns the number of members.
func (d *Domain[M]) Size() int { return max(len(d.members), 1) }

// Limits returns the limits; nil for none.
func (d *Domain[M]) Limits() *limit.Limits { return d.limits }

// Policy returns the policy of the limits; the zero value for none.
func (d *Domain[M]) Policy() (p limit.Policy) {
	if d.limits != nil {
		p = d.limits.Policy()
	}
	return p
}

// SetLimits sets the limits in the name of a member. What was taken under the limits before stays taken.
func (d *Domain[M]) SetLimits(p limit.Policy, by status.ProviderID) {
	d.limits, d.limitsBy = limit.New(p, d.limits), by
}

// LimitsBy returns the member that has set the limits; the zero value for none.
func (d *Domain[M]) LimitsBy() status.ProviderID { return d.limitsBy }

// Status returns what the members share, as it is shown.
func (d *Domain[M]) Status() status.Domain {
	return status.Domain{Members: d.Size(), LimitsBy: d.limitsBy, Cooldown: d.Cooldown.Status(verdict.ScopeDomain)}
}

// Set has the shared domains by their keys.
type Set[M comparable] map[string]*Domain[M]

// Join makes m a member of the domain of the key, which is created with its first member. An empty key stands for a
// domain of one.
func (s Set[M]) Join(key string, m M) *Domain[M] {
	if key == "" {
		return &Domain[M]{only: m}
	}
	d, ok := s[key]
	if !ok {
		d = &Domain[M]{key: key, members: make(map[M]struct{})}
		s[key] = d
	}
	d.members[m] = struct{}{}
	return d
}

// Leave takes m out of its domain, which ends with its last member: its cooldown does not end any more.
func (s Set[M]) Leave(d *Domain[M], m M) {
	delete(d.members, m) // nothing to delete in a domain of one, nor of its empty key
	if len(d.members) > 0 {
		return
	}
	delete(s, d.key)
	d.Cooldown.StopTimer()
}
