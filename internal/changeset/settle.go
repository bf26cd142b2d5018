package changeset

import (
	"fmt"
	"iter"
	"strings"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

// claim is a value that a change wants for a group or a domain. The zero claim is that of no change.
type claim[V any] struct {
	by    status.ProviderID
	value V
}

// none reports whether there is no claim.
func (c *claim[V]) none() bool { return c.by == status.ProviderID{} }

// first keeps the first claim.
func (c *claim[V]) first(by status.ProviderID, value V) {
	if c.none() {
		*c = claim[V]{by, value}
	}
}

// sharing collects what a set does with one group or domain.
type sharing[V any] struct {
	before  Shared[V]
	leavers []status.ProviderID
	set     claim[V] // the first change of the value
	brought claim[V] // of the first newcomer that wants one
	own     claim[V] // of the first that moves in; they follow the others
	end     decision[V]
}

// decision is the value that holds after a set.
type decision[V any] struct {
	claim[V]        // the change that it is from; none: the members that stay
	how      string // it came about
	forced   bool   // applying the changes one by one does not bring it about
}

// decide finds the value that the set leads to: the one that is set, else that of the members that stay, else that of
// the first newcomer that wants one, else that of the first that moves in; the zero decision leaves it open.
func (s *sharing[V]) decide() {
	switch empty := s.before.Size == len(s.leavers); {
	case !s.set.none():
		s.end = decision[V]{s.set, "sets in the same update", false}
	case !empty && s.before.By != status.ProviderID{}:
		s.end = decision[V]{claim[V]{value: s.before.Value}, "set", false}
	case !s.brought.none():
		s.end = decision[V]{s.brought, "brings in the same update", true}
	case empty && !s.own.none():
		s.end = decision[V]{s.own, "has", true}
	}
}

// by returns the member or change that the decision is from: of those that stay the one that has set the value or, where
// that has left or leaves, the first by name.
func (s *sharing[V]) by(members iter.Seq[status.ProviderID]) (first status.ProviderID) {
	if !s.end.none() {
		return s.end.by
	}
	leavers := make(map[status.ProviderID]bool, len(s.leavers))
	for _, left := range s.leavers {
		leavers[left] = true
	}
	setBy := s.before.By
	for member := range members {
		switch {
		case leavers[member]:
		case member == setBy:
			return member
		case first.Name == "" || member.String() < first.String():
			first = member
		}
	}
	return first
}

// groups has the groups that a set touches, in the order in which it does so.
type groups = table[GroupKey, sharing[selection.Strategy]]

// settleGroups finds the strategy of each group that the set touches, and refuses changes that want another.
func (s *set) settleGroups() {
	var all groups
	s.noteGroups(&all)
	for _, g := range all.all {
		if g.decide(); g.end.forced {
			s.plan.Strategies = append(s.plan.Strategies, Value[selection.Strategy]{g.end.by, g.end.value})
		}
	}
	for i := range s.changes {
		if wanted := s.changes[i].strategy(); !wanted.IsZero() {
			s.checkStrategy(i, wanted, &all)
		}
	}
}

// noteGroups notes what the set does with each group.
func (s *set) noteGroups(all *groups) {
	for i := range s.changes {
		c := &s.changes[i]
		if c.Kind == Leave || c.Kind >= SetLimits {
			continue
		}
		f := s.fates.find(c.Of)
		g, added := all.at(c.group(f))
		if added {
			g.before = s.world.Group(c.group(f))
		}
		switch {
		case c.Kind == SetStrategy:
			g.set.first(c.Of, c.Wanted)
		case c.Kind == Join && !c.Member.Strategy.IsZero():
			g.brought.first(c.Of, c.Member.Strategy)
		case c.Kind == Move && f.after() != f.before.Group:
			g.own.first(c.Of, s.world.Group(GroupKey{c.Of.Service, f.before.Group}).Value)
		}
	}
	for id, f := range s.fates.all {
		if g := all.find(GroupKey{id.Service, f.before.Group}); g != nil && f.leavesGroup() {
			g.leavers = append(g.leavers, id)
		}
	}
}

// group names the group that the provider of the change is in after the set.
func (c *Change) group(f *fate) GroupKey {
	if c.Kind == Join {
		return GroupKey{c.Of.Service, c.Member.Group}
	}
	return GroupKey{c.Of.Service, f.after()}
}

// strategy returns the strategy that a change wants for its group; the zero value for whatever there is.
func (c *Change) strategy() (wanted selection.Strategy) {
	switch c.Kind {
	case Join:
		return c.Member.Strategy
	case SetStrategy:
		return c.Wanted
	case Leave, Move, SetLimits, Set:
	}
	return wanted
}

// checkStrategy refuses a change that wants another strategy than its group gets, or one that no option names.
func (s *set) checkStrategy(i int, wanted selection.Strategy, all *groups) {
	key := s.changes[i].group(s.fates.find(s.changes[i].Of))
	g := all.find(key)
	if !wanted.Same(g.end.value) {
		s.refuse(i, fault.ErrConflict, "Strategy", wanted, fmt.Sprintf("%v, which provider %q %s for group %d",
			g.end.value, g.by(s.world.InGroup(key)).Name, g.end.how, key.ID.Number))
		return
	}
	if g.before.Size > 0 && wanted.Same(g.before.Value) {
		return
	}
	if v := s.rules.Strategies.Check(wanted); v != nil {
		s.refused = append(s.refused, Refusal{i, fault.ErrInvalid, *v})
	}
}

// domains has the shared failure domains that a set touches.
type domains = table[string, sharing[limit.Policy]]

// settleDomains does for the limits of shared domains what settleGroups does for the strategies of groups.
func (s *set) settleDomains() {
	var all domains
	if s.noteDomains(&all); !all.used {
		return
	}
	for _, d := range all.all {
		if d.decide(); d.end.forced {
			s.plan.Limits = append(s.plan.Limits, Value[limit.Policy]{d.end.by, d.end.value})
		}
	}
	for i := range s.changes {
		c := &s.changes[i]
		key, wanted := c.limits(s.fates.find(c.Of))
		if d := all.find(key); key != "" && wanted != d.end.value {
			s.refuse(i, fault.ErrConflict, "Limits", check.Raw(fmt.Sprintf("%+v", wanted)),
				fmt.Sprintf("%+v, which provider %q %s for domain %q",
					d.end.value, oneline.Cut(d.by(s.world.InDomain(key)).String(), 128), d.end.how, oneline.Cut(strings.Trim(key, "\x00"), 64)))
		}
	}
}

// noteDomains notes what the set does with the limits of each domain.
func (s *set) noteDomains(all *domains) {
	for i := range s.changes {
		c := &s.changes[i]
		key, wanted := c.limits(s.fates.find(c.Of))
		if key == "" {
			continue
		}
		d, added := all.at(key)
		if added {
			d.before = s.world.Domain(key)
		}
		if c.Kind == SetLimits {
			d.set.first(c.Of, wanted)
		} else {
			d.brought.first(c.Of, wanted)
		}
	}
	for id, f := range s.fates.all {
		if d := all.find(f.before.Domain); d != nil && f.present && !f.stays() {
			d.leavers = append(d.leavers, id)
		}
	}
}

// limits returns the limits that a change wants for a shared domain, and the key of that; none: "".
func (c *Change) limits(f *fate) (key string, wanted limit.Policy) {
	switch {
	case c.Kind == Join && c.Member.Limits != (limit.Policy{}):
		return c.Member.Domain, c.Member.Limits
	case c.Kind == SetLimits:
		return f.before.Domain, c.Limits
	}
	return "", wanted
}
