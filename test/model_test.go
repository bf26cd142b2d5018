package test_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

// script decodes a byte string into steps; when it runs out, all is zero.
type script struct{ rest []byte }

func (s *script) pick(n int) int {
	if len(s.rest) == 0 {
		return 0
	}
	b := s.rest[0]
	s.rest = s.rest[1:]
	return int(b) % n
}

func (s *script) query() registry.Query {
	q := registry.Query{Handler: []string{"", "", "h", "i"}[s.pick(4)]}
	q.OwnOnly = q.Handler != "" && s.pick(3) == 0
	for _, capability := range []string{"x", "y"} {
		if s.pick(3) == 0 {
			q.Require = append(q.Require, capability)
		}
	}
	if s.pick(5) == 0 {
		q.Where.Exclude = []string{"p1", "p3", "p4"}[:1+s.pick(3)]
	}
	if s.pick(5) == 0 {
		q.Where.MaxLatency = time.Hour // all are faster, but each pick has to check
	}
	return q
}

// play runs a script against the registry and the naive one side by side.
func play(t *testing.T, steps []byte) {
	t.Helper()
	passOn := func(error) verdict.Verdict { return verdict.Verdict{Class: verdict.ClassCannot} }
	options := registry.Options{Classify: passOn, Decisions: len(steps) % 2 * 8} // which makes each pick a choice
	testkit.Bubble(t, options, func(t *testing.T, reg *registry.Registry) {
		naive := &naiveRegistry{
			strategies: map[naiveGroup]selection.Strategy{}, turns: map[string]map[naiveGroup]naiveTurn{},
		}
		live := make(map[*naiveProvider]*registry.Registration)
		for s := (&script{steps}); len(s.rest) > 0; {
			stepOnBoth(t, reg, naive, live, s)
			checkSame(t, reg, naive, live)
		}
	})
}

func stepOnBoth(
	t *testing.T, reg *registry.Registry, naive *naiveRegistry, live map[*naiveProvider]*registry.Registration, s *script,
) {
	t.Helper()
	priorities := []registry.Priority{
		registry.PriorityCritical, registry.PriorityHigh, registry.PriorityNormal, registry.PriorityLow, registry.PriorityFallback,
	}
	what := s.pick(12)
	if what <= 2 || len(naive.providers) == 0 {
		naive.joined++
		p := &naiveProvider{
			name: fmt.Sprintf("p%d", naive.joined), joined: naive.joined, handler: []string{"", "h"}[s.pick(2)],
			group: s.pick(3) - 1, priority: priorities[s.pick(5)], mock: s.pick(6) == 1,
		}
		for _, capability := range []string{"x", "y"} {
			if s.pick(2) == 0 {
				p.capabilities = append(p.capabilities, capability)
			}
		}
		naive.join(t, reg, live, p, testkit.StrategyNumber(s.pick(4)))
		return
	}
	p := naive.providers[s.pick(len(naive.providers))]
	handle := live[p]
	switch what {
	case 3:
		require.NoError(t, handle.Unregister(t.Context()))
		naive.providers = slices.DeleteFunc(naive.providers, func(other *naiveProvider) bool { return other == p })
		delete(live, p)
		naive.endGroup(p)
	case 4:
		p.sick = !p.sick
		if p.sick {
			require.NoError(t, handle.MarkUnhealthy(testkit.ErrDown))
		} else {
			require.NoError(t, handle.MarkHealthy())
		}
	case 5:
		p.open = !p.open
		if p.open {
			require.NoError(t, handle.ForceOpen(time.Hour, "script"))
		} else {
			require.NoError(t, handle.Reset())
		}
	case 6:
		p.priority = priorities[s.pick(5)]
		_, err := handle.SetPriority(p.priority)
		require.NoError(t, err)
	case 7:
		kept, number := naive.strategyOf(p), s.pick(3)-1
		old := *p
		p.group = number
		if _, exists := naive.strategies[naiveGroup{p.handler, number, false}]; !exists {
			naive.strategies[naiveGroup{p.handler, number, false}] = kept
		}
		naive.endGroup(&old)
		_, err := handle.SetGroup(number)
		require.NoError(t, err)
	case 8:
		strategy := testkit.StrategyNumber(1 + s.pick(3))
		naive.strategies[naiveGroup{p.handler, p.group, false}] = strategy
		_, err := handle.SetStrategy(strategy)
		require.NoError(t, err)
	default:
		lookupOnBoth(t, reg, naive, s.query(), what)
	}
}

func lookupOnBoth(t *testing.T, reg *registry.Registry, naive *naiveRegistry, q registry.Query, what int) {
	t.Helper()
	r := testkit.Chat.Bind(reg, q)
	naive.forget(q)
	order := naive.lookup(q, false)
	winner := ""
	if len(order) > 0 {
		winner = order[0]
	}
	require.Equal(t, winner, r.Explain().Winner)
	if what == 9 {
		var asked []string
		_, err := registry.Call(t.Context(), r, func(ctx context.Context, m testkit.ChatModel) (string, error) {
			name, err := m.Chat(ctx, "")
			asked = append(asked, name)
			return "", errors.Join(err, testkit.ErrDown)
		})
		require.Error(t, err)
		require.Equal(t, naive.lookup(q, true), asked)
		return
	}
	naive.lookupFirst(q)
	m, err := r.Get(t.Context())
	if winner == "" {
		require.ErrorIs(t, err, registry.ErrUnavailable)
		return
	}
	require.NoError(t, err)
	name, err := m.Chat(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, winner, name)
}

// checkSame compares what can be read without moving anything.
func checkSame(
	t *testing.T, reg *registry.Registry, naive *naiveRegistry, live map[*naiveProvider]*registry.Registration,
) {
	t.Helper()
	require.Equal(t, len(naive.providers), reg.Stats().Providers)
	for p, handle := range live {
		d := handle.Definition()
		require.Equal(t, []any{p.group, p.priority, naive.strategyOf(p)}, []any{d.Group, d.Priority, d.Strategy}, p.name)
	}
	var having []string
	for _, p := range naive.providers {
		if slices.Contains(p.capabilities, "x") && slices.Contains(p.capabilities, "y") {
			having = append(having, p.name)
		}
	}
	require.ElementsMatch(t, having, testkit.Discovered(t, reg, "x", "y"))
}

func TestModel_PickingAgreesWithNaiveRegistry(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 1))
		steps := make([]byte, 1500+seed%2)
		for i := range steps {
			steps[i] = byte(random.UintN(256))
		}
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			play(t, steps)
		})
	}
}

func FuzzModel_PickingAgreesWithNaiveRegistry(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("a registry is asked, changed and asked again"))
	f.Fuzz(func(t *testing.T, steps []byte) {
		if len(steps) > 4096 {
			t.Skip()
		}
		play(t, steps)
	})
}

// naiveRegistry does what the registry promises about picking in the simplest
// way there is: it filters and sorts a list for each look-up.
type naiveRegistry struct {
	providers  []*naiveProvider
	strategies map[naiveGroup]selection.Strategy
	turns      map[string]map[naiveGroup]naiveTurn // by query
	joined     int
}

func (n *naiveRegistry) strategyOf(p *naiveProvider) selection.Strategy {
	return n.strategies[naiveGroup{p.handler, p.group, false}]
}

// candidates returns what the query wants, in order.
func (n *naiveRegistry) candidates(q registry.Query) []*naiveProvider {
	var wanted []*naiveProvider
	for _, p := range n.providers {
		mine := p.handler == q.Handler || p.handler == "" && !q.OwnOnly
		for _, required := range q.Require {
			mine = mine && slices.Contains(p.capabilities, required)
		}
		mine = mine && !slices.Contains(q.Where.Exclude, p.name)
		if mine {
			wanted = append(wanted, p)
		}
	}
	bool2int := map[bool]int{true: 1}
	slices.SortFunc(wanted, func(a, b *naiveProvider) int {
		return cmp.Or(
			cmp.Compare(bool2int[a.mock], bool2int[b.mock]),
			cmp.Compare(bool2int[a.handler == ""], bool2int[b.handler == ""]),
			cmp.Compare(a.group, b.group),
			cmp.Compare(a.priority.Rank(), b.priority.Rank()),
			cmp.Compare(a.joined, b.joined),
		)
	})
	return wanted
}

// lookup returns the names in the order in which they would be asked. Each
// rotation that is entered moves when the look-up says so: the first one for a
// Get, all for a call that fails everywhere.
func (n *naiveRegistry) lookup(q registry.Query, move bool) (names []string) {
	turns := n.turns[fmt.Sprint(q)]
	candidates := n.candidates(q)
	for len(candidates) > 0 {
		group := candidates[0].key()
		end := slices.IndexFunc(candidates, func(p *naiveProvider) bool { return p.key() != group })
		if end < 0 {
			end = len(candidates)
		}
		members, members0 := candidates[:end], candidates[0]
		candidates = candidates[end:]
		if n.strategyOf(members[0]) == registry.StrategyRoundRobin {
			last, known := turns[group]
			after := slices.IndexFunc(members, func(p *naiveProvider) bool {
				return !known || cmp.Or(cmp.Compare(p.priority.Rank(), last.rank), cmp.Compare(p.joined, last.joined)) > 0
			})
			if after > 0 {
				members = slices.Concat(members[after:], members[:after])
			}
		}
		members = slices.DeleteFunc(slices.Clone(members), func(p *naiveProvider) bool { return p.sick || p.open })
		if n.strategyOf(members0) == testkit.LastStrategy {
			slices.Reverse(members)
		}
		for _, p := range members {
			names = append(names, p.name)
		}
		if move && len(members) > 0 && n.strategyOf(members[0]) == registry.StrategyRoundRobin {
			turns[group] = members[0].turn()
		}
	}
	return names
}

// forget drops the turns of groups that the query sees no member of: the next
// member starts over.
func (n *naiveRegistry) forget(q registry.Query) {
	turns := n.turns[fmt.Sprint(q)]
	if turns == nil {
		turns = make(map[naiveGroup]naiveTurn)
		n.turns[fmt.Sprint(q)] = turns
	}
	alive := make(map[naiveGroup]bool)
	for _, p := range n.candidates(q) {
		alive[p.key()] = n.strategyOf(p) == registry.StrategyRoundRobin
	}
	for group := range turns {
		if !alive[group] {
			delete(turns, group)
		}
	}
}

func (n *naiveRegistry) join(
	t *testing.T, reg *registry.Registry, live map[*naiveProvider]*registry.Registration, p *naiveProvider, wanted selection.Strategy,
) {
	t.Helper()
	group := naiveGroup{p.handler, p.group, false}
	present, exists := n.strategies[group]
	registration, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{
		Name: p.name, Handler: p.handler, Group: p.group, Priority: p.priority, Mock: p.mock,
		Strategy: wanted, Capabilities: p.capabilities, Instance: testkit.Says(p.name),
	})
	if exists && !wanted.IsZero() && wanted != present {
		require.ErrorIs(t, err, registry.ErrConflict)
		return
	}
	require.NoError(t, err)
	if !exists {
		n.strategies[group] = cmp.Or(wanted, registry.StrategyFallback)
	}
	n.providers = append(n.providers, p)
	live[p] = registration
}

// endGroup forgets the strategy of a group that p was the last member of.
func (n *naiveRegistry) endGroup(p *naiveProvider) {
	for _, other := range n.providers {
		if other.handler == p.handler && other.group == p.group {
			return
		}
	}
	delete(n.strategies, naiveGroup{p.handler, p.group, false})
}

// lookupFirst moves the rotation of the group that the winner is in, and no other.
func (n *naiveRegistry) lookupFirst(q registry.Query) {
	order := n.lookup(q, false)
	if len(order) == 0 {
		return
	}
	at := slices.IndexFunc(n.providers, func(p *naiveProvider) bool { return p.name == order[0] })
	winner := n.providers[at]
	if n.strategyOf(winner) == registry.StrategyRoundRobin {
		n.turns[fmt.Sprint(q)][winner.key()] = winner.turn()
	}
}

type naiveProvider struct {
	name         string
	handler      string
	group        int
	priority     registry.Priority
	capabilities []string
	mock         bool
	joined       int
	sick, open   bool
}

func (p *naiveProvider) turn() naiveTurn { return naiveTurn{p.priority.Rank(), p.joined} }

func (p *naiveProvider) key() naiveGroup { return naiveGroup{p.handler, p.group, p.mock} }

type naiveGroup struct {
	handler string
	number  int
	mock    bool // real ones and mocks of a group take turns of their own
}

// naiveTurn is the member of a group that was picked last, by its position in the order.
type naiveTurn struct{ rank, joined int }
