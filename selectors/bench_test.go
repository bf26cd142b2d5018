package selectors_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

// measured returns a group in the middle of its work.
func measured(n int, weighted bool) *group {
	g := newGroup(selection.Request{Near: "eu-west-1", Prefer: []string{"x", "y"}}, selection.Policy{}, profiles(n, func(i int, p *choice.Profile) {
		p.Region, p.Cost, p.Tags = "eu-west-2", float64(i%4), []string{"x"}
		if weighted {
			p.Weight = float64(1 + i%3)
		}
	})...)
	for i := range g.vitals {
		g.answer(i, time.Duration(10+i%7)*time.Millisecond)
		if i%2 == 0 {
			g.vitals[i].Begin()
		}
	}
	g.key = "session-4711"
	return g
}

func BenchmarkPick(b *testing.B) {
	for _, s := range selectors.All() {
		for _, n := range []int{2, 8, 64, 1000} {
			for _, weighted := range []bool{false, true} {
				b.Run(fmt.Sprintf("strategy=%v/n=%d/weighted=%v", s, n, weighted), func(b *testing.B) {
					g := measured(n, weighted)
					look, selector := g.look(), s.Selector()
					epoch := time.Now().Add(-g.now)
					look.Now, look.Epoch = 0, &epoch // as in a registry: a strategy that needs the time reads the clock
					b.ReportAllocs()
					for b.Loop() {
						if selector.Pick(g.set.With(look)) < 0 {
							b.Fatal("no candidate")
						}
					}
				})
			}
		}
	}
}
