package selectors_test

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// group is candidates with their vitals, on a clock of their own.
type group struct {
	set    selection.View
	vitals []*choice.Vitals
	cursor *choice.Cursor
	now    time.Duration
	down   uint64 // the candidates that are not eligible
	key    string
}

// profiles returns n providers; each function changes them.
func profiles(n int, change func(i int, p *choice.Profile)) []choice.Profile {
	all := make([]choice.Profile, n)
	for i := range all {
		all[i] = choice.Profile{Service: "s", Name: fmt.Sprintf("p%d", i)}
		if change != nil {
			change(i, &all[i])
		}
	}
	return all
}

func newGroup(r selection.Request, p selection.Policy, all ...choice.Profile) *group {
	g := &group{cursor: choice.NewCursor(1), now: time.Hour}
	members := make([]choice.Member, len(all))
	for i, profile := range all {
		g.vitals = append(g.vitals, choice.NewVitals(0, p.Decay))
		members[i] = choice.Member{Profile: profile, Vitals: g.vitals[i]}
	}
	g.set = r.View(p, members)
	return g
}

// bitmap implements Eligible for a large group.
type bitmap []bool

func (b bitmap) Has(i int) bool { return i >= 0 && i < len(b) && b[i] }

func (b bitmap) Next(i int) int {
	for i = max(i, 0); i < len(b); i++ {
		if b[i] {
			return i
		}
	}
	return -1
}

func (g *group) look() choice.Input {
	n := g.set.Len()
	look := choice.Input{Cursor: g.cursor, Now: g.now, Key: g.key}
	if n > 64 {
		all := make(bitmap, n)
		for i := range all {
			all[i] = i >= 64 || g.down>>uint(i)&1 == 0
		}
		look.Large = all
		return look
	}
	look.Mask = (^uint64(0) >> (64 - uint(n))) &^ g.down
	return look
}

func (g *group) pick(s selection.Strategy) int { return s.Selector().Pick(g.set.With(g.look())) }

// peek picks without taking a turn.
func (g *group) peek(s selection.Strategy) int {
	look := g.look()
	look.Peek = true
	return s.Selector().Pick(g.set.With(look))
}

// again picks for a call that was given others before.
func (g *group) again(s selection.Strategy, given ...int) int {
	look := g.look()
	look.Asked = len(given)
	for _, i := range given {
		look.Mask &^= 1 << uint(i)
	}
	return s.Selector().Pick(g.set.With(look))
}

// shares picks n times and counts.
func (g *group) shares(s selection.Strategy, n int) []int {
	counts := make([]int, g.set.Len())
	for range n {
		counts[g.pick(s)]++
	}
	return counts
}

// answer lets a provider answer a request that took so long, ago.
func (g *group) answer(i int, took time.Duration) {
	g.vitals[i].Begin()
	g.vitals[i].End(g.now, took, choice.Answered, nil)
}

func (g *group) fail(i int, took time.Duration) {
	g.vitals[i].Begin()
	g.vitals[i].End(g.now, took, choice.Failed, nil)
}
