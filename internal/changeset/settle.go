package changeset

import (
	"fmt"
	"strings"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/selection"
)

// claim is a value that a change wants for a group or a domain.
type claim[V any] struct {
	index int
	name  string
	value V
}

// sharing collects what a set does with one group or domain.
type sharing[V any] struct {
	leavers map[string]bool
	set     []claim[V] // by changes of the value
	brought []claim[V] // by newcomers that want one
	own     []claim[V] // of those that move in, and follow the others
}

// leave notes that a member leaves.
func (s *sharing[V]) leave(name string) {
	if s.leavers == nil {
		s.leavers = make(map[string]bool)
	}
	s.leavers[name] = true
}

// sharings are those that a set changes, in the order in which it touches them.
type sharings[K comparable, V any] struct {
	all   map[K]*sharing[V]
	order []K
}

func (s *sharings[K, V]) at(key K) *sharing[V] {
	found, ok := s.all[key]
	if !ok {
		found = &sharing[V]{}
		if s.all == nil {
			s.all = make(map[K]*sharing[V])
		}
		s.all[key] = found
		s.order = append(s.order, key)
	}
	return found
}

// decision is the value that holds after a set.
type decision[V any] struct {
	value  V
	by     func() string // the change or member that it is from
	how    string        // it came about
	forced bool          // applying the changes one by one does not bring it about
}

// decide returns the value that the set leads to: the one that is set, else that of the members that stay, else that
// of the first newcomer that wants one, else that of the first that moves in; the zero decision leaves it open.
func (s *sharing[V]) decide(before Shared[V]) decision[V] {
	from := func(c claim[V], how string, forced bool) decision[V] {
		return decision[V]{c.value, func() string { return c.name }, how, forced}
	}
	switch empty := before.Size == len(s.leavers); {
	case len(s.set) > 0:
		return from(s.set[0], "sets in the same update", false)
	case !empty && before.By != "":
		return decision[V]{before.Value, func() string { return s.staying(before) }, "set", false}
	case len(s.brought) > 0:
		return from(s.brought[0], "brings in the same update", true)
	case empty && len(s.own) > 0:
		return from(s.own[0], "has", true)
	}
	return decision[V]{}
}

// staying returns the member that has set the value or, where that has left or leaves, the first by name that stays.
func (s *sharing[V]) staying(before Shared[V]) (name string) {
	for member := range before.Names {
		switch {
		case s.leavers[member]:
		case member == before.By:
			return member
		case name == "" || member < name:
			name = member
		}
	}
	return name
}

// settleGroups finds the strategy of each group that the set touches, and refuses changes that want another.
func (s *set) settleGroups() {
	var groups sharings[GroupKey, selection.Strategy]
	for i, c := range s.changes {
		f := s.fateOf(c.Name)
		switch c.Kind {
		case Join:
			if g := groups.at(GroupKey{c.Member.Service, c.Member.Group}); !c.Member.Strategy.IsZero() {
				g.brought = append(g.brought, claim[selection.Strategy]{i, c.Name, c.Member.Strategy})
			}
		case Move:
			if g := groups.at(GroupKey{f.before.Service, f.after()}); f.after() != f.before.Group {
				own := s.world.Group(GroupKey{f.before.Service, f.before.Group}).Value
				g.own = append(g.own, claim[selection.Strategy]{i, c.Name, own})
			}
		case SetStrategy:
			g := groups.at(GroupKey{f.before.Service, f.after()})
			g.set = append(g.set, claim[selection.Strategy]{i, c.Name, c.Wanted})
		case Leave, SetLimits, Set:
		}
	}
	for name, f := range s.fates {
		if g := groups.all[GroupKey{f.before.Service, f.before.Group}]; g != nil && f.present && (!f.stays() || f.after() != f.before.Group) {
			g.leave(name)
		}
	}
	for _, key := range groups.order {
		s.settleGroup(key, groups.all[key])
	}
}

func (s *set) settleGroup(key GroupKey, g *sharing[selection.Strategy]) {
	before := s.world.Group(key)
	end := g.decide(before)
	for _, c := range append(g.set, g.brought...) {
		if !c.value.Same(end.value) {
			s.refuse(c.index, fault.ErrConflict, "Strategy", c.value,
				fmt.Sprintf("%v, which provider %q %s for group %d", end.value, end.by(), end.how, key.ID.Number))
		} else if v := s.rules.Strategies.Check(c.value); v != nil && (before.Size == 0 || !c.value.Same(before.Value)) {
			s.refused = append(s.refused, Refusal{c.index, fault.ErrInvalid, *v})
		}
	}
	if end.forced {
		s.plan.Strategies = append(s.plan.Strategies, Value[selection.Strategy]{end.by(), end.value})
	}
}

// settleDomains does for the limits of shared domains what settleGroups does for the strategies of groups.
func (s *set) settleDomains() {
	var domains sharings[string, limit.Policy]
	for i, c := range s.changes {
		f := s.fateOf(c.Name)
		switch {
		case c.Kind == Join && c.Member.Domain != "" && c.Member.Limits != (limit.Policy{}):
			d := domains.at(c.Member.Domain)
			d.brought = append(d.brought, claim[limit.Policy]{i, c.Name, c.Member.Limits})
		case c.Kind == SetLimits && f.before.Domain != "":
			d := domains.at(f.before.Domain)
			d.set = append(d.set, claim[limit.Policy]{i, c.Name, c.Limits})
		}
	}
	for name, f := range s.fates {
		if d := domains.all[f.before.Domain]; d != nil && f.present && !f.stays() {
			d.leave(name)
		}
	}
	for _, key := range domains.order {
		s.settleDomain(key, domains.all[key])
	}
}

func (s *set) settleDomain(key string, d *sharing[limit.Policy]) {
	end := d.decide(s.world.Domain(key))
	for _, c := range append(d.set, d.brought...) {
		if c.value != end.value {
			s.refuse(c.index, fault.ErrConflict, "Limits", check.Raw(fmt.Sprintf("%+v", c.value)),
				fmt.Sprintf("%+v, which provider %q %s for domain %q", end.value, end.by(), end.how, oneline.Cut(strings.Trim(key, "\x00"), 64)))
		}
	}
	if end.forced {
		s.plan.Limits = append(s.plan.Limits, Value[limit.Policy]{end.by(), end.value})
	}
}
