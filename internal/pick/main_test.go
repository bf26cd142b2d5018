package pick_test

import (
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is the owner of plans: it has what outlives them.
type fixture struct {
	config    pick.Config
	keys      []uint64 // of the candidates; nil: their numbers from 1 on
	names     []string // nil: none
	rotations map[int]*pick.Rotation
	vitals    []*choice.Vitals
	tracks    []*choice.Track
	failures  []pick.Failure
	decisions []pick.Decision
}

func (f *fixture) OrderKey(candidate int) uint64 {
	if f.keys != nil {
		return f.keys[candidate]
	}
	return uint64(candidate) + 1
}

func (f *fixture) Rotation(tier int) *pick.Rotation {
	if f.rotations == nil {
		f.rotations = make(map[int]*pick.Rotation)
	}
	f.rotations[tier] = pick.RotationFor(f.rotations[tier], f.config.Tiers[tier].Strategy, 1)
	return f.rotations[tier]
}

func (f *fixture) Member(candidate int, measured bool) (m choice.Member) {
	if f.names != nil {
		m.Profile.Name = f.names[candidate]
	}
	if measured {
		for len(f.vitals) <= candidate {
			f.vitals = append(f.vitals, choice.NewVitals(0, f.config.Policy.Decay))
			f.tracks = append(f.tracks, &choice.Track{})
		}
		m.Vitals, m.Context = f.vitals[candidate], f.tracks[candidate]
	}
	return m
}

// of returns a fixture with the tiers.
func of(tiers ...pick.Tier) *fixture {
	epoch := time.Now()
	f := &fixture{config: pick.Config{Tiers: tiers, Epoch: &epoch, Lookups: &atomic.Uint64{}}}
	f.config.Hooks.Fault = func(failure pick.Failure) { f.failures = append(f.failures, failure) }
	return f
}

// records makes the fixture keep decisions.
func (f *fixture) records() *fixture {
	f.config.Hooks.Decided = func(d pick.Decision) { f.decisions = append(f.decisions, d) }
	return f
}

// plan makes a plan whose candidates are all healthy.
func (f *fixture) plan() *pick.Plan {
	p := &pick.Plan{}
	p.Init(f.config, f)
	for i := range p.Len() {
		p.Set(i, true, true)
	}
	return p
}

func fallback(size int) pick.Tier {
	return pick.Tier{Size: size, Strategy: selection.Fallback()}
}

func roundRobin(size int) pick.Tier {
	return pick.Tier{Size: size, Strategy: selection.RoundRobin()}
}

func chosen(size int, selector func(v selection.View) int) pick.Tier {
	return pick.Tier{Size: size, Strategy: selection.New("TEST", selection.Func(selector))}
}

// last picks the last eligible candidate.
func last(v selection.View) int {
	picked := -1
	for i := v.Next(0); i >= 0; i = v.Next(i + 1) {
		picked = i
	}
	return picked
}

// drain returns the candidates that the iterator has left.
func drain(it *pick.Iterator) (all []int) {
	for i := it.Next(&pick.Caller{}); i >= 0; i = it.Next(&pick.Caller{}) {
		all = append(all, i)
	}
	return all
}

// order returns the candidates in the order of a new iterator.
func order(p *pick.Plan, eligible *bitset.Set, mode pick.Mode) []int {
	it := p.Iterate(eligible)
	it.Mode = mode
	return drain(&it)
}

// firsts returns n picks.
func firsts(p *pick.Plan, n int) (all []int) {
	for range n {
		all = append(all, p.First(p.Healthy, true))
	}
	return all
}
