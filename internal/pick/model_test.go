package pick_test

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
)

// model answers as a plan and its iterators do, with one loop for each question.
type model struct {
	tiers    []pick.Tier
	low      []int
	tierOf   []int
	eligible []bool
	last     []int // by tier: the candidate that its rotation is at; -1: none
}

func newModel(tiers []pick.Tier) *model {
	m := &model{tiers: tiers}
	for n, tier := range tiers {
		m.low, m.last = append(m.low, len(m.tierOf)), append(m.last, -1)
		for range tier.Size {
			m.tierOf, m.eligible = append(m.tierOf, n), append(m.eligible, true)
		}
	}
	return m
}

func (m *model) high(tier int) int      { return m.low[tier] + m.tiers[tier].Size }
func (m *model) rotates(tier int) bool  { return m.tiers[tier].Strategy.Same(selection.RoundRobin()) }
func (m *model) selected(tier int) bool { return m.tiers[tier].Strategy.Selector() != nil }

// around returns the first eligible candidate of a tier behind another one, round to it where wrap says so.
func (m *model) around(tier, behind int, wrap bool) int {
	for i := behind + 1; i < m.high(tier); i++ {
		if m.eligible[i] {
			return i
		}
	}
	for i := m.low[tier]; wrap && i <= behind; i++ {
		if m.eligible[i] {
			return i
		}
	}
	return -1
}

// enter returns the first pick of a tier.
func (m *model) enter(tier int, advance bool) int {
	switch {
	case m.rotates(tier):
		i := m.around(tier, max(m.last[tier], m.low[tier]-1), true)
		if i >= 0 && advance {
			m.last[tier] = i
		}
		return i
	case m.selected(tier):
		return m.lastEligible(tier, nil)
	}
	return m.around(tier, m.low[tier]-1, false)
}

func (m *model) lastEligible(tier int, offered map[int]bool) int {
	for i := m.high(tier) - 1; i >= m.low[tier]; i-- {
		if m.eligible[i] && !offered[i] {
			return i
		}
	}
	return -1
}

// first is Plan.First.
func (m *model) first(advance bool) int {
	for tier := range m.tiers {
		switch i := m.around(tier, m.low[tier]-1, false); {
		case i < 0:
		case m.selected(tier):
			return pick.Undecided
		default:
			return m.enter(tier, advance)
		}
	}
	return -1
}

// cursor is an iterator over a model.
type cursor struct {
	model     *model
	peekUntil int // the first tier that is not only peeked at
	tier      int // -1: none yet; len(model.tiers): over
	at, start int
	wrapped   bool
	offered   map[int]bool
}

func (c *cursor) begin(i int) int {
	c.tier, c.at, c.start, c.wrapped = c.model.tierOf[i], i, i, false
	c.offered[i] = true
	return i
}

func (c *cursor) next() int {
	m := c.model
	if c.tier == len(m.tiers) {
		return -1
	}
	if c.tier >= 0 {
		if i := c.within(); i >= 0 {
			c.at, c.offered[i] = i, true
			return i
		}
	}
	for tier := c.tier + 1; tier < len(m.tiers); tier++ {
		if i := m.enter(tier, tier >= c.peekUntil); i >= 0 {
			return c.begin(i)
		}
	}
	c.tier = len(m.tiers)
	return -1
}

func (c *cursor) within() int {
	m := c.model
	if m.selected(c.tier) {
		return m.lastEligible(c.tier, c.offered)
	}
	if !c.wrapped {
		if i := m.around(c.tier, c.at, false); i >= 0 || !m.rotates(c.tier) {
			return i
		}
		c.wrapped, c.at = true, m.low[c.tier]-1
	}
	if i := m.around(c.tier, c.at, false); i < c.start {
		return i
	}
	return -1
}

func (c *cursor) more() bool {
	if c.tier < 0 || c.tier == len(c.model.tiers) {
		return c.tier < 0
	}
	ahead := *c
	if ahead.within() >= 0 {
		return true
	}
	for tier := c.tier + 1; tier < len(c.model.tiers); tier++ {
		if c.model.around(tier, c.model.low[tier]-1, false) >= 0 {
			return true
		}
	}
	return false
}

// compare runs a script on a plan and on the model: first the tiers, then what happens.
func compare(t *testing.T, script []byte) {
	t.Helper()
	take := func(n int) int {
		if len(script) == 0 {
			return 0
		}
		value := int(script[0]) % n
		script = script[1:]
		return value
	}
	var tiers []pick.Tier
	for range 1 + take(4) {
		size := []int{1, 2, 3, 5, 61, 64, 65, 130}[take(8)]
		tiers = append(tiers, []func() pick.Tier{
			func() pick.Tier { return fallback(size) }, func() pick.Tier { return roundRobin(size) },
			func() pick.Tier { return chosen(size, last) },
		}[take(3)]())
	}
	f, m := of(tiers...), newModel(tiers)
	p := f.plan()
	it, c := p.Iterate(p.Healthy), &cursor{model: m, tier: -1, offered: map[int]bool{}}
	flip := func(i int) {
		m.eligible[i] = !m.eligible[i]
		p.Set(i, m.eligible[i], true)
	}
	restart := func(first, kind int) {
		modes := []pick.Mode{pick.Advance, pick.Peek, pick.Preview, pick.PeekUntil(0), pick.PeekUntil(1), pick.PeekUntil(2)}
		peekUntil := []int{0, len(tiers), len(tiers), 0, 1, 2}[kind]
		it, c = p.IterateFrom(p.Healthy, first), &cursor{model: m, tier: -1, peekUntil: peekUntil, offered: map[int]bool{}}
		it.Mode = modes[kind]
	}
	offered := make(map[int]bool)
	for len(script) > 0 {
		switch take(8) {
		case 0:
			flip(take(p.Len()))
		case 1: // many
			for i, step := 0, 1+take(5); i < p.Len(); i += step {
				flip(i)
			}
		case 2:
			restart(-1, take(6))
			clear(offered)
		case 3:
			first := p.First(p.Healthy, true)
			require.Equal(t, m.first(true), first)
			restart(first, 0)
			clear(offered)
			if first >= 0 {
				require.Equal(t, c.begin(first), it.Next(nil))
				offered[first] = true
			}
		case 4:
			require.Equal(t, m.first(false), p.First(p.Healthy, false))
			require.Equal(t, m.first(false) != -1, p.AnyEligible(p.Healthy))
		default:
			require.Equal(t, c.more(), it.More())
			next := it.Next(nil)
			require.Equal(t, c.next(), next)
			require.False(t, offered[next], "candidate %d twice", next)
			offered[next] = next >= 0
		}
	}
	require.Empty(t, f.failures)
}

func TestPlan_AnswersAsTheModelDoes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(1000) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 1))
			script := make([]byte, 20+random.IntN(300))
			for i := range script {
				script[i] = byte(random.Uint32())
			}
			compare(t, script)
		})
	}
}

func FuzzPlan(f *testing.F) {
	f.Add([]byte{3, 2, 1, 0, 0, 4, 2, 0, 7, 7, 7, 0, 3, 7, 3, 7, 7, 2, 4, 7, 7})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) < 2000 {
			compare(t, script)
		}
	})
}
