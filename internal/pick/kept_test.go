package pick_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
)

// member is a member of plans that are made one after the other.
type member struct {
	name     string
	sequence uint64
	group    *pick.Group
	vitals   *choice.Vitals
}

var aboutMembers = pick.About[*member]{
	Rank: func(m *member) pick.Rank {
		return pick.Rank{Tier: pick.TierKey{GroupID: m.group.GroupID}, Sequence: m.sequence}
	},
	Group:   func(m *member) *pick.Group { return m.group },
	Profile: func(m *member) choice.Profile { return choice.Profile{Name: m.name} },
	Vitals:  func(m *member) *choice.Vitals { return m.vitals },
}

// keeping makes plans of one query with a policy, and remembers their groups.
type keeping struct {
	pick.Kept[*member]

	config pick.Config
	groups []*pick.Group
}

func (k *keeping) plan(members ...*member) *pick.Plan {
	p, epoch := &pick.Plan{}, time.Now()
	k.config.Epoch = &epoch
	k.Init(p, members, aboutMembers, k.config, func(groups []*pick.Group) pick.Hooks {
		k.groups = groups
		return pick.Hooks{}
	})
	for i := range members {
		p.Set(i, true, true)
	}
	return p
}

// next returns the member that the next lookup is given.
func next(p *pick.Plan, members ...*member) *member {
	it := p.Iterate(p.Healthy)
	return members[it.Next(&pick.Caller{})]
}

func membersOf(groups pick.Groups, number int, s selection.Strategy, names ...string) (all []*member) {
	for i, name := range names {
		g := groups.Join(pick.GroupID{Number: number}, s, name)
		all = append(all, &member{name, uint64(i) + 1, g, choice.NewVitals(0, 0)})
	}
	return all
}

func TestKept_RotationsGoOnInTheNextPlan(t *testing.T) {
	t.Parallel()
	groups := make(pick.Groups)
	ring := membersOf(groups, 0, selection.RoundRobin(), "a", "b", "c")
	rest := membersOf(groups, 1, selection.Fallback(), "d")
	k := &keeping{}
	before := next(k.plan(ring...), ring...)
	all := append(ring, rest...) //nolint:gocritic // another list
	after := next(k.plan(all...), all...)
	require.Equal(t, before.sequence%3+1, after.sequence)
	require.Equal(t, []*pick.Group{ring[0].group, rest[0].group}, k.groups, "those of its tiers")

	k.plan(rest...) // without the ring, whose turn is forgotten
	k.config.Policy.Seed = 1
	require.Equal(t, "a", next(k.plan(all...), all...).name, "a new rotation begins where the seed says")
}

func TestKept_MeasurementsAndSpilledLookupsGoOn(t *testing.T) {
	t.Parallel()
	members := membersOf(make(pick.Groups), 0, selection.Fallback(), "a", "b")
	k := &keeping{config: pick.Config{
		Policy: selection.Policy{SpillOver: 1.5}, Request: selection.Request{Where: selection.Requirements{MaxLatency: time.Second}},
	}}
	tracks := func(of ...*member) (all []*choice.Track) {
		it := k.plan(of...).Iterate(nil)
		for i := range of {
			all = append(all, it.Track(i))
		}
		return all
	}
	before := tracks(members...)
	require.NotSame(t, before[0], before[1])
	after := tracks(members[1])
	require.Same(t, before[1], after[0])
	require.NotSame(t, before[0], tracks(members...)[0], "it was dropped with its member")
}
