package changeset

import (
	"fmt"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/status"
)

// set is a set that is being resolved.
type set struct {
	world   World
	changes []Change
	rules   Rules
	fates   table[status.ProviderID, fate]
	plan    Plan
	refused []Refusal
}

// fate holds the changes that a set makes to one name of a service.
type fate struct {
	before  Member
	present bool // before the set
	left    bool // by a Leave
	joined  bool // by a Join
	moved   bool // by a Move, to the group
	group   int
	changed map[string]bool
}

// stays reports whether the provider that has the name before the set has it afterwards.
func (f *fate) stays() bool { return f.present && !f.left && !f.joined }

// leavesGroup reports whether a provider that the group has before the set is not in it afterwards.
func (f *fate) leavesGroup() bool { return f.present && (!f.stays() || f.after() != f.before.Group) }

// after returns where a provider that stays is after the set.
func (f *fate) after() pick.GroupID {
	id := f.before.Group
	if f.moved {
		id.Number = f.group
	}
	return id
}

func (s *set) refuse(i int, kind error, field string, value any, bound string) {
	s.refused = append(s.refused, Refusal{Index: i, Kind: kind, Violation: *check.Refuse(field, value, bound)})
}

// noteFates notes what becomes of each name, and refuses changes that cannot both be made.
func (s *set) noteFates() {
	for i := range s.changes {
		c := &s.changes[i]
		f, added := s.fates.at(c.Of)
		if added {
			f.before, f.present = s.world.Member(c.Of)
		}
		switch what := c.what(); {
		case c.Kind == Join && f.joined:
			s.refuse(i, fault.ErrExists, "Name", c.Of.Name, "a name that no other provider of the update has")
		case c.Kind == Join:
			f.joined = true
		case f.changed[what]:
			s.refuse(i, fault.ErrConflict, "Name", c.Of.Name, fmt.Sprintf("a provider of which the update changes the %s once", what))
		default:
			if f.changed == nil {
				f.changed = make(map[string]bool)
			}
			f.changed[what] = true
			f.left = f.left || c.Kind == Leave
			if c.Kind == Move {
				f.moved, f.group = true, c.Group
			}
		}
	}
}

// what names that which a change changes.
func (c *Change) what() string {
	return [...]string{Leave: "registration", Move: "group", SetStrategy: "strategy", SetLimits: "limits", Set: c.What}[c.Kind]
}

// checkNames refuses changes whose names are taken, unknown, or on their way out.
func (s *set) checkNames() {
	for i := range s.changes {
		c := &s.changes[i]
		f := s.fates.find(c.Of)
		var reserved *check.Violation
		if c.Kind == Join {
			reserved = s.world.Reserved(c.Of)
		}
		switch {
		case c.Kind == Join && f.present && !f.left && !c.Replace:
			s.refuse(i, fault.ErrExists, "Name", c.Of.Name,
				fmt.Sprintf("a name that no provider of service %q has, or Replace", oneline.Cut(c.Of.Service, 64)))
		case reserved != nil:
			s.refused = append(s.refused, Refusal{i, fault.ErrConflict, *reserved})
		case c.Kind == Join:
		case !f.present:
			s.refuse(i, fault.ErrNotRegistered, "Name", c.Of.Name, fmt.Sprintf("the name of a provider of service %q", oneline.Cut(c.Of.Service, 64)))
		case c.Kind != Leave && !f.stays():
			s.refuse(i, fault.ErrConflict, "Name", c.Of.Name, "a provider that the update neither removes nor replaces")
		}
	}
}

// checkMocks refuses mocks beside real providers, where the rules do.
func (s *set) checkMocks() {
	if !s.rules.ForbidMocks {
		return
	}
	known, gone := make(map[string]map[bool]string), make(map[status.ProviderID]bool)
	for id, f := range s.fates.all {
		gone[id] = !f.stays()
	}
	for i := range s.changes {
		c := &s.changes[i]
		if c.Kind != Join || c.Member.OfTest {
			continue
		}
		there, ok := known[c.Of.Service]
		if !ok {
			there = staying(s.world, c.Of.Service, gone)
			known[c.Of.Service] = there
		}
		if other, mixed := there[!c.Member.Mock]; mixed {
			s.refuse(i, fault.ErrConflict, "Mock", c.Member.Mock,
				fmt.Sprintf("the same as provider %q has: Options.ForbidMocks is set", other))
			continue
		}
		there[c.Member.Mock] = c.Of.Name
	}
}

// staying returns a mock and a real provider of the service that stay, if there are any. Those of tests do not count.
func staying(world World, service string, gone map[status.ProviderID]bool) map[bool]string {
	found := make(map[bool]string)
	for id, m := range world.Members(service) {
		if !m.OfTest && !gone[id] {
			found[m.Mock] = id.Name
		}
	}
	return found
}
