package changeset_test

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/changeset"
	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a membership in which each member says what its group and domain have.
type world struct {
	members map[status.ProviderID]changeset.Member
	setBy   map[any]status.ProviderID // by group key or domain key
	swapped string
}

func (w world) Member(id status.ProviderID) (m changeset.Member, ok bool) {
	m, ok = w.members[id]
	return m, ok
}

func (w world) Reserved(id status.ProviderID) *check.Violation {
	if id.Name == w.swapped {
		return check.Refuse("Name", id.Name, "a name that is not swapped")
	}
	return nil
}

func keyOf(id status.ProviderID, m changeset.Member) changeset.GroupKey {
	return changeset.GroupKey{Service: id.Service, ID: m.Group}
}

func (w world) Group(key changeset.GroupKey) changeset.Shared[selection.Strategy] {
	s := changeset.Shared[selection.Strategy]{By: w.setBy[key]}
	for id := range w.InGroup(key) {
		s.Value, s.Size = w.members[id].Strategy, s.Size+1
	}
	return s
}

func (w world) InGroup(key changeset.GroupKey) iter.Seq[status.ProviderID] {
	return w.ids(func(id status.ProviderID, m changeset.Member) bool { return keyOf(id, m) == key })
}

func (w world) Domain(key string) changeset.Shared[limit.Policy] {
	s := changeset.Shared[limit.Policy]{By: w.setBy[key]}
	for id := range w.InDomain(key) {
		s.Value, s.Size = w.members[id].Limits, s.Size+1
	}
	return s
}

func (w world) InDomain(key string) iter.Seq[status.ProviderID] {
	return w.ids(func(_ status.ProviderID, m changeset.Member) bool { return m.Domain == key })
}

func (w world) ids(wanted func(status.ProviderID, changeset.Member) bool) iter.Seq[status.ProviderID] {
	return func(yield func(status.ProviderID) bool) {
		for id, m := range w.members {
			if wanted(id, m) && !yield(id) {
				return
			}
		}
	}
}

func (w world) Members(service string) iter.Seq2[status.ProviderID, changeset.Member] {
	return func(yield func(status.ProviderID, changeset.Member) bool) {
		for id, m := range w.members {
			if id.Service == service && !yield(id, m) {
				return
			}
		}
	}
}

var (
	ring, first  = selection.RoundRobin(), selection.Fallback()
	small, large = limit.Policy{MaxConcurrent: 1}, limit.Policy{MaxConcurrent: 2}
)

// of returns the provider of that name of service s, or of another one, as in "t/a".
func of(name string) status.ProviderID {
	if service, name, other := strings.Cut(name, "/"); other {
		return status.ProviderID{Service: service, Name: name}
	}
	return status.ProviderID{Service: "s", Name: name}
}

func in(group int, strategy selection.Strategy) changeset.Member {
	return changeset.Member{Group: pick.GroupID{Number: group}, Strategy: strategy}
}

func sharing(domain string, limits limit.Policy) changeset.Member {
	return changeset.Member{Domain: domain, Limits: limits}
}

func join(name string, m changeset.Member) changeset.Change {
	return changeset.Change{Kind: changeset.Join, Of: of(name), Member: m}
}

func replace(name string, m changeset.Member) changeset.Change {
	return changeset.Change{Kind: changeset.Join, Of: of(name), Member: m, Replace: true}
}

func leave(name string) changeset.Change {
	return changeset.Change{Kind: changeset.Leave, Of: of(name)}
}

func move(name string, group int) changeset.Change {
	return changeset.Change{Kind: changeset.Move, Of: of(name), Group: group}
}

func strategy(name string, s selection.Strategy) changeset.Change {
	return changeset.Change{Kind: changeset.SetStrategy, Of: of(name), Wanted: s}
}

func limits(name string, p limit.Policy) changeset.Change {
	return changeset.Change{Kind: changeset.SetLimits, Of: of(name), Limits: p}
}

func set(name, what string) changeset.Change {
	return changeset.Change{Kind: changeset.Set, Of: of(name), What: what}
}

// ringOfTwo has the members a and b of service s, in one round-robin group that a has set, and c in group 1.
func ringOfTwo() world {
	return world{
		members: map[status.ProviderID]changeset.Member{of("a"): in(0, ring), of("b"): in(0, ring), of("c"): in(1, first)},
		setBy:   map[any]status.ProviderID{changeset.GroupKey{Service: "s"}: of("a"), changeset.GroupKey{Service: "s", ID: pick.GroupID{Number: 1}}: of("c")},
	}
}

// keyOfTwo has the members a and b, which share a domain whose limits b has set.
func keyOfTwo() world {
	return world{
		members: map[status.ProviderID]changeset.Member{of("a"): sharing("key", small), of("b"): sharing("key", small)},
		setBy:   map[any]status.ProviderID{"key": of("b"), changeset.GroupKey{Service: "s"}: of("a")},
	}
}

func TestResolve_AcceptsWhatFitsTogetherAfterwards(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		world   world
		changes []changeset.Change
		want    changeset.Plan
	}{
		"nothing":                       {ringOfTwo(), nil, changeset.Plan{}},
		"leaves go first":               {ringOfTwo(), []changeset.Change{set("a", "weight"), strategy("a", ring), move("c", 2), join("d", in(0, ring)), leave("b")}, changeset.Plan{Order: []int{4, 3, 2, 1, 0}, Strategies: []changeset.Value[selection.Strategy]{{By: of("c"), Value: first}}}},
		"a name that is removed":        {ringOfTwo(), []changeset.Change{join("a", in(5, first)), leave("a")}, changeset.Plan{Order: []int{1, 0}, Strategies: []changeset.Value[selection.Strategy]{{By: of("a"), Value: first}}}},
		"a name of another service":     {ringOfTwo(), []changeset.Change{join("t/a", in(0, first)), set("a", "weight")}, changeset.Plan{Order: []int{0, 1}, Strategies: []changeset.Value[selection.Strategy]{{By: of("t/a"), Value: first}}}},
		"replaced in another service":   {ringOfTwo(), []changeset.Change{replace("t/a", in(0, first)), leave("a")}, changeset.Plan{Order: []int{1, 0}, Strategies: []changeset.Value[selection.Strategy]{{By: of("t/a"), Value: first}}}},
		"whole group replaced":          {ringOfTwo(), []changeset.Change{replace("a", in(0, first)), replace("b", in(0, first))}, changeset.Plan{Order: []int{0, 1}, Strategies: []changeset.Value[selection.Strategy]{{By: of("a"), Value: first}}}},
		"one of the group, with all":    {ringOfTwo(), []changeset.Change{replace("a", in(0, first)), strategy("b", first)}, changeset.Plan{Order: []int{0, 1}}},
		"the others move away":          {ringOfTwo(), []changeset.Change{replace("a", in(0, first)), move("b", 7)}, changeset.Plan{Order: []int{0, 1}, Strategies: []changeset.Value[selection.Strategy]{{By: of("a"), Value: first}, {By: of("b"), Value: ring}}}},
		"the strategy of where it goes": {ringOfTwo(), []changeset.Change{move("c", 0), strategy("c", first), replace("a", in(0, first))}, changeset.Plan{Order: []int{2, 0, 1}}},
		"no strategy wanted":            {ringOfTwo(), []changeset.Change{join("d", in(0, selection.Strategy{}))}, changeset.Plan{Order: []int{0}}},
		"whole domain replaced":         {keyOfTwo(), []changeset.Change{replace("a", sharing("key", large)), replace("b", sharing("key", large))}, changeset.Plan{Order: []int{0, 1}, Limits: []changeset.Value[limit.Policy]{{By: of("a"), Value: large}}}},
		"one of the domain, with all":   {keyOfTwo(), []changeset.Change{replace("a", sharing("key", large)), limits("b", large)}, changeset.Plan{Order: []int{0, 1}}},
		"the rest of it leaves":         {keyOfTwo(), []changeset.Change{leave("b"), replace("a", sharing("key", large))}, changeset.Plan{Order: []int{0, 1}, Limits: []changeset.Value[limit.Policy]{{By: of("a"), Value: large}}}},
		"domains of one":                {keyOfTwo(), []changeset.Change{join("c", sharing("", large)), join("d", sharing("", small))}, changeset.Plan{Order: []int{0, 1}}},
	} {
		plan, refused := changeset.Resolve(row.world, row.changes, changeset.Rules{})
		require.Empty(t, refused, name)
		require.Equal(t, row.want, plan, name)
	}
}

func TestResolve_RefusesWhatDoesNot(t *testing.T) {
	t.Parallel()
	swapped := ringOfTwo()
	swapped.swapped = "a"
	mocks := func(m changeset.Member) changeset.Member { m.Mock = true; return m }
	ofTest := func(m changeset.Member) changeset.Member { m.OfTest = true; return m }
	for name, row := range map[string]struct {
		world   world
		changes []changeset.Change
		at      int
		kind    error
		text    string
	}{
		"name taken":               {ringOfTwo(), []changeset.Change{join("a", in(0, ring))}, 0, fault.ErrExists, `a name that no provider of service "s" has, or Replace`},
		"name taken twice":         {ringOfTwo(), []changeset.Change{join("d", in(0, ring)), join("d", in(0, ring))}, 1, fault.ErrExists, "no other provider of the update"},
		"replaced twice":           {ringOfTwo(), []changeset.Change{replace("a", in(0, ring)), replace("a", in(0, ring))}, 1, fault.ErrExists, "no other provider of the update"},
		"swapped":                  {swapped, []changeset.Change{replace("a", in(0, ring))}, 0, fault.ErrConflict, "a name that is not swapped"},
		"unknown":                  {ringOfTwo(), []changeset.Change{leave("x")}, 0, fault.ErrNotRegistered, "the name of a provider"},
		"of another service":       {ringOfTwo(), []changeset.Change{leave("t/a")}, 0, fault.ErrNotRegistered, `the name of a provider of service "t"`},
		"setting of unknown":       {ringOfTwo(), []changeset.Change{set("x", "weight")}, 0, fault.ErrNotRegistered, "the name of a provider"},
		"setting of newcomer":      {ringOfTwo(), []changeset.Change{join("x", in(0, ring)), set("x", "weight")}, 1, fault.ErrNotRegistered, "the name of a provider"},
		"setting of leaver":        {ringOfTwo(), []changeset.Change{leave("a"), move("a", 1)}, 1, fault.ErrConflict, "neither removes nor replaces"},
		"setting of replaced":      {ringOfTwo(), []changeset.Change{replace("a", in(0, ring)), set("a", "weight")}, 1, fault.ErrConflict, "neither removes nor replaces"},
		"removed twice":            {ringOfTwo(), []changeset.Change{leave("a"), leave("a")}, 1, fault.ErrConflict, "changes the registration once"},
		"set twice":                {ringOfTwo(), []changeset.Change{set("a", "weight"), set("a", "priority"), set("a", "weight")}, 2, fault.ErrConflict, "changes the weight once"},
		"one of the group":         {ringOfTwo(), []changeset.Change{replace("a", in(0, first))}, 0, fault.ErrConflict, `ROUND_ROBIN, which provider "b" set for group 0`},
		"moved in with the group":  {ringOfTwo(), []changeset.Change{move("c", 0), join("d", in(0, first))}, 1, fault.ErrConflict, `ROUND_ROBIN, which provider "a" set for group 0`},
		"newcomers disagree":       {ringOfTwo(), []changeset.Change{join("d", in(5, first)), join("e", in(5, ring))}, 1, fault.ErrConflict, `FALLBACK, which provider "d" brings in the same update for group 5`},
		"changes disagree":         {ringOfTwo(), []changeset.Change{strategy("a", first), strategy("b", ring)}, 1, fault.ErrConflict, `FALLBACK, which provider "a" sets in the same update for group 0`},
		"newcomer and change":      {ringOfTwo(), []changeset.Change{join("d", in(0, ring)), strategy("b", first)}, 0, fault.ErrConflict, `FALLBACK, which provider "b" sets`},
		"unknown strategy":         {ringOfTwo(), []changeset.Change{join("d", in(5, named(t, "x")))}, 0, fault.ErrInvalid, "one of FALLBACK, ROUND_ROBIN"},
		"one of the domain":        {keyOfTwo(), []changeset.Change{replace("b", sharing("key", large))}, 0, fault.ErrConflict, `which provider "s/a" set for domain "key"`},
		"newcomers of a domain":    {keyOfTwo(), []changeset.Change{join("c", sharing("new", small)), join("d", sharing("new", large))}, 1, fault.ErrConflict, `which provider "s/c" brings in the same update for domain "new"`},
		"limits set twice":         {keyOfTwo(), []changeset.Change{limits("a", small), limits("b", large)}, 1, fault.ErrConflict, `which provider "s/a" sets in the same update`},
		"mock beside a real one":   {ringOfTwo(), []changeset.Change{leave("a"), join("m", mocks(in(0, ring)))}, 1, fault.ErrConflict, "Options.ForbidMocks is set"},
		"mock with a real one":     {ringOfTwo(), []changeset.Change{join("new/d", in(0, ring)), join("new/m", mocks(in(0, ring)))}, 1, fault.ErrConflict, `provider "d" has`},
		"a mock of a test is none": {ringOfTwo(), []changeset.Change{join("m", ofTest(mocks(in(0, ring)))), leave("x")}, 1, fault.ErrNotRegistered, "the name"},
	} {
		_, refused := changeset.Resolve(row.world, row.changes, changeset.Rules{ForbidMocks: true})
		require.Len(t, refused, 1, name)
		require.Equal(t, row.at, refused[0].Index, name)
		require.Equal(t, row.kind, refused[0].Kind, name)
		require.Contains(t, refused[0].Bound, row.text, name)
	}
}

func named(t *testing.T, name string) (s selection.Strategy) {
	t.Helper()
	require.NoError(t, s.UnmarshalText([]byte(name)))
	return s
}

func TestResolve_MocksMayTakeThePlaceOfAllRealOnes(t *testing.T) {
	t.Parallel()
	mock := in(0, first)
	mock.Mock = true
	_, refused := changeset.Resolve(ringOfTwo(), []changeset.Change{replace("a", mock), join("m", mock), leave("b"), leave("c")},
		changeset.Rules{ForbidMocks: true})
	require.Empty(t, refused)
}

func TestResolve_ReportsEveryRefusal(t *testing.T) {
	t.Parallel()
	_, refused := changeset.Resolve(ringOfTwo(), []changeset.Change{leave("x"), leave("a"), join("b", in(0, ring))}, changeset.Rules{})
	require.Len(t, refused, 2)
	_, refused = changeset.Resolve(ringOfTwo(), []changeset.Change{join("x", in(0, first)), join("y", in(1, ring))}, changeset.Rules{})
	require.Len(t, refused, 2)
}

// apply makes the changes as a naive program would, on what the plan says: the strategy of each group by name of a
// member, and the limits of each domain. It knows no rule but that the first member of a group or domain decides.
func apply(w world, changes []changeset.Change, plan changeset.Plan) world {
	next := world{members: maps.Clone(w.members), setBy: make(map[any]status.ProviderID)}
	groups, domains := make(map[changeset.GroupKey]selection.Strategy), make(map[string]limit.Policy)
	for id, m := range w.members {
		groups[keyOf(id, m)], domains[m.Domain] = m.Strategy, m.Limits
	}
	forget := func() {
		for key := range groups {
			if next.Group(key).Size == 0 {
				delete(groups, key)
			}
		}
		for key := range domains {
			if next.Domain(key).Size == 0 {
				delete(domains, key)
			}
		}
	}
	enter := func(id status.ProviderID, m changeset.Member) {
		if known, ok := groups[keyOf(id, m)]; !ok {
			groups[keyOf(id, m)] = m.Strategy
			if m.Strategy.IsZero() {
				groups[keyOf(id, m)] = first
			}
		} else {
			m.Strategy = known
		}
		if known := domains[m.Domain]; m.Domain != "" && known == (limit.Policy{}) {
			domains[m.Domain] = m.Limits
		}
		next.members[id] = m
	}
	for _, i := range plan.Order {
		c := changes[i]
		m := next.members[c.Of]
		switch c.Kind {
		case changeset.Leave:
			delete(next.members, c.Of)
		case changeset.Join:
			delete(next.members, c.Of)
			forget()
			enter(c.Of, c.Member)
		case changeset.Move:
			own := groups[keyOf(c.Of, m)]
			delete(next.members, c.Of)
			forget()
			m.Group.Number, m.Strategy = c.Group, own
			enter(c.Of, m)
		case changeset.SetStrategy:
			groups[keyOf(c.Of, m)] = c.Wanted
		case changeset.SetLimits:
			domains[m.Domain] = c.Limits
		case changeset.Set:
		}
		forget()
	}
	for _, v := range plan.Strategies {
		groups[keyOf(v.By, next.members[v.By])] = v.Value
	}
	for _, v := range plan.Limits {
		domains[next.members[v.By].Domain] = v.Value
	}
	for id, m := range next.members {
		if m.Strategy = groups[keyOf(id, m)]; m.Domain != "" {
			m.Limits = domains[m.Domain]
		}
		next.members[id] = m
		next.setBy[keyOf(id, m)], next.setBy[m.Domain] = id, id
	}
	return next
}

// Any set that is accepted leads to a world in which each newcomer has what it asked for, each change is there, and
// those that no change concerns are as before; the order of the changes does not decide whether it is accepted.
func TestResolve_AgreesWithNaiveModel(t *testing.T) {
	t.Parallel()
	accepted := 0
	for seed := range uint64(4_000) {
		random := rand.New(rand.NewPCG(seed, 1))
		w := world{members: map[status.ProviderID]changeset.Member{}, setBy: map[any]status.ProviderID{}}
		for range 3 {
			changes := draw(random)
			plan, refused := changeset.Resolve(w, changes, changeset.Rules{})
			shuffled := slices.Clone(changes)
			random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			_, again := changeset.Resolve(w, shuffled, changeset.Rules{})
			require.Equal(t, len(refused) == 0, len(again) == 0, "seed %d: %v", seed, changes)
			if len(refused) > 0 {
				continue
			}
			accepted++
			next := apply(w, changes, plan)
			requireChanges(t, fmt.Sprint("seed ", seed, ": ", changes), w, changes, next)
			w = next
		}
	}
	require.Greater(t, accepted, 1_000)
}

func requireChanges(t *testing.T, about string, before world, changes []changeset.Change, after world) {
	t.Helper()
	names := maps.Clone(before.members)
	for _, c := range changes {
		m, ok := after.members[c.Of]
		switch c.Kind {
		case changeset.Leave:
			delete(names, c.Of)
			continue
		case changeset.Join:
			require.True(t, c.Member.Strategy.IsZero() || c.Member.Strategy.Same(m.Strategy), about)
			require.True(t, c.Member.Domain == "" || c.Member.Limits == limit.Policy{} || c.Member.Limits == m.Limits, about)
		case changeset.Move:
			require.Equal(t, c.Group, m.Group.Number, about)
		case changeset.SetStrategy:
			require.True(t, c.Wanted.Same(m.Strategy), about)
		case changeset.SetLimits:
			require.True(t, m.Domain == "" || c.Limits == m.Limits, about)
		case changeset.Set:
		}
		require.True(t, ok, about)
	}
	for _, c := range changes {
		if c.Kind == changeset.Join {
			names[c.Of] = c.Member
		}
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(names)), slices.Collect(maps.Keys(after.members)), about)
	if only := changes[0]; len(changes) == 1 && only.Kind <= changeset.Join {
		for id, m := range before.members {
			if id != only.Of {
				require.Equal(t, m, after.members[id], about)
			}
		}
	}
}

// draw returns up to five changes of four names in each of two services, two groups and two domains.
func draw(random *rand.Rand) (changes []changeset.Change) {
	strategies := []selection.Strategy{{}, first, ring}
	policies := []limit.Policy{{}, small, large}
	for range 1 + random.IntN(5) {
		name := []string{"s/", "t/"}[random.IntN(2)] + string(rune('p'+random.IntN(4)))
		switch random.IntN(8) {
		case 0:
			changes = append(changes, leave(name))
		case 1:
			changes = append(changes, move(name, random.IntN(2)))
		case 2:
			changes = append(changes, strategy(name, strategies[1+random.IntN(2)]))
		case 3:
			changes = append(changes, limits(name, policies[1+random.IntN(2)]))
		case 4:
			changes = append(changes, set(name, "weight"))
		default:
			m := in(random.IntN(2), strategies[random.IntN(3)])
			m.Domain = []string{"", "d", "e"}[random.IntN(3)]
			m.Limits = policies[random.IntN(3)]
			changes = append(changes, changeset.Change{Kind: changeset.Join, Of: of(name), Member: m, Replace: random.IntN(2) == 0})
		}
	}
	return changes
}

func TestNameFor_SkipsNamesThatAreTaken(t *testing.T) {
	t.Parallel()
	count := uint64(1)
	name := changeset.NameFor("llm", &count, func(id status.ProviderID) bool {
		require.Equal(t, "llm", id.Service)
		return id.Name == "llm-2"
	})
	require.Equal(t, "llm-3", name)
	require.EqualValues(t, 3, count)
	long := changeset.NameFor(strings.Repeat("x", 300), &count, func(status.ProviderID) bool { return false })
	require.Less(t, len(long), 256)
}
