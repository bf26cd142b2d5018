// Package pick decides which candidate of a query comes next.
//
// A [Plan] knows its candidates only as numbers from 0 on, in the one order, cut into tiers: the
// candidates of a tier are eligible for the same pick, and a tier is exhausted before the next one is
// asked, but for what spills over. An [Iterator] offers the candidates of a plan, each at most once.
// What the picks of one tier remember, its [Rotation], and what its selector did wrong, its [Faults],
// outlive the plan and belong to its owner.
//
// The package owns the order of picks, the turns of ROUND_ROBIN, and the way a selector of a user is
// asked: in the goroutine of the look-up, with its panics, exits and wrong answers covered by the
// order of the tier. It must never hold a lock, block, allocate for a pick (a second pick from a tier
// of more than 64 may), start a goroutine, or know what a candidate is.
package pick

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/selection"
)

// Undecided is what [Plan.First] returns where a selector has to choose, which takes an [Iterator].
const Undecided = -2

// Plan has the candidates of one query in their order. [Plan.Init] makes one, which must not be
// copied. It is immutable but for the two sets, and safe for concurrent use.
type Plan struct {
	// Healthy has the candidates that nothing keeps calls away from, and Admitting those that calls
	// may enter, trials of half-open breakers included. They follow the candidates by [Plan.Set].
	Healthy, Admitting *bitset.Set
	// InOrder says that the first eligible candidate is the one to pick, in every tier.
	InOrder bool

	tiers  []tier
	tierOf []int32 // candidate → the number of its tier
	extras *extras // nil: no tier has a picker
}

// Config describes a plan.
type Config struct {
	// Tiers are in the order in which they are asked. Their candidates are numbered through.
	Tiers []Tier
	// Request is what is asked; its Where.MaxLatency leaves slower candidates out of each pick.
	Request selection.Request
	// Policy says whether tiers spill over, and how fast measurements fade.
	Policy selection.Policy
	// Lookups counts the look-ups that spill over, for all plans of the query. It must not be nil
	// where the policy has spill-over.
	Lookups *atomic.Uint64
	// Epoch is when the clock of the vitals began.
	Epoch *time.Time
	Hooks Hooks
}

// Tier describes one tier.
type Tier struct {
	// Size is how many candidates it has, at least one.
	Size int
	// Strategy picks from them.
	Strategy selection.Strategy
	// Scope is the same for consecutive tiers that spill over to one another.
	Scope int
	// Faults counts what the selector does wrong; nil: nothing does.
	Faults *Faults
}

// Source answers the questions of [Plan.Init].
type Source interface {
	// OrderKey returns a number that stands for the candidate in every plan: more than 0, less than
	// 1 << 48, and ascending within a tier.
	OrderKey(candidate int) uint64
	// Rotation returns what the picks of a tier remember, which is asked of tiers that are not in order.
	Rotation(tier int) *Rotation
	// Member returns what a selector sees of a candidate. Unless measured is set it needs neither
	// vitals nor a track.
	Member(candidate int, measured bool) selection.Member
}

// Hooks are called in the goroutine of a look-up. Either may be nil.
type Hooks struct {
	// Fault is told what a selector did wrong, of each tier's at most once a minute. A panic is still
	// on the stack.
	Fault func(Failure)
	// Decided is told of every pick that counts. It makes every tier one with a picker.
	Decided func(Decision)
}

// Decision is a pick that was made.
type Decision struct {
	Tier, Candidate int
	Strategy        selection.Strategy
	// Eligible of the Candidates of the tier could be picked, and Asked of them were offered before.
	Eligible, Candidates, Asked int
	// Detail is what the selector says of the one picked; nil where it says nothing.
	Detail *selection.Detail
}

// extras is what a plan needs where a tier has a picker.
type extras struct {
	hooks      Hooks
	policy     selection.Policy
	maxLatency time.Duration // 0: any
	epoch      *time.Time
	lookups    *atomic.Uint64      // nil: tiers are strict
	vitals     []*selection.Vitals // of each candidate; nil where nothing is measured
	tracks     []*selection.Track
}

func (e *extras) now() time.Duration { return time.Since(*e.epoch) }

// maskBits is the size up to which the members of a tier are bits of one word.
const maskBits = 64

// tier is a stretch of candidates that one strategy picks from.
type tier struct {
	low, high int
	scope     int
	all       uint64    // a bit for each member; 0: there are more than maskBits
	rotation  *Rotation // nil: in order
	keys      []uint64  // of the members, ascending, for the rotation; see positionBits
	picker    *picker   // nil: the strategy is built in and has nothing more to heed

	healthy, admitting *largeSubset // of a tier with a rotation and more than maskBits members
}

func (t *tier) size() int { return t.high - t.low }

// Init makes the plan; all its candidates are neither healthy nor admitting yet. Calls of Init that
// share a rotation must be serialised.
func (p *Plan) Init(c Config, source Source) {
	size := 0
	for i := range c.Tiers {
		size += c.Tiers[i].Size
	}
	*p = Plan{
		Healthy: bitset.New(size), Admitting: bitset.New(size), InOrder: true,
		tiers: make([]tier, len(c.Tiers)), tierOf: make([]int32, size),
	}
	every := c.Policy.SpillOver > 0 || c.Request.Where.MaxLatency > 0 || c.Hooks.Decided != nil
	low := 0
	for n := range c.Tiers {
		given, t := &c.Tiers[n], &p.tiers[n]
		t.low, t.high, t.scope = low, low+given.Size, given.Scope
		low = t.high
		for i := t.low; i < t.high; i++ {
			p.tierOf[i] = int32(n)
		}
		if t.size() <= maskBits {
			t.all = ^uint64(0) >> (maskBits - t.size())
		}
		if !every && given.Strategy.Same(selection.Fallback()) {
			continue
		}
		p.InOrder = false
		p.rotate(t, source.Rotation(n), source)
		if every || given.Strategy.Selector() != nil {
			p.choose(t, given, &c, source)
		}
	}
}

// rotate gives the tier its rotation.
func (p *Plan) rotate(t *tier, rotation *Rotation, source Source) {
	t.rotation, t.keys = rotation, make([]uint64, t.size())
	for i := range t.keys {
		t.keys[i] = source.OrderKey(t.low+i)<<positionBits | uint64(i)&positionMask
	}
	if t.all == 0 {
		t.healthy = &largeSubset{plan: p, tier: t, eligible: p.Healthy}
		t.admitting = &largeSubset{plan: p, tier: t, eligible: p.Admitting}
	}
}

// choose gives the tier its picker.
func (p *Plan) choose(t *tier, given *Tier, c *Config, source Source) {
	if p.extras == nil {
		p.extras = &extras{
			hooks: c.Hooks, policy: c.Policy, maxLatency: c.Request.Where.MaxLatency, epoch: c.Epoch,
			vitals: make([]*selection.Vitals, len(p.tierOf)), tracks: make([]*selection.Track, len(p.tierOf)),
		}
		if c.Policy.SpillOver > 0 {
			p.extras.lookups = c.Lookups
		}
	}
	k := &picker{
		strategy: given.Strategy, selector: given.Strategy.Selector(), faults: given.Faults,
		roundRobin: given.Strategy.Same(selection.RoundRobin()),
	}
	if k.faults == nil {
		k.faults = &Faults{}
	}
	measured := k.selector != nil || p.extras.maxLatency > 0
	members := make([]selection.Member, t.size())
	for i := range members {
		m := source.Member(t.low+i, measured)
		members[i], p.extras.vitals[t.low+i], p.extras.tracks[t.low+i] = m, m.Vitals, m.Context
	}
	k.set = selection.NewSet(c.Request, c.Policy, members)
	t.picker = k
}

// Set says whether candidate i is healthy and admitting from now on. Calls must be serialised.
func (p *Plan) Set(i int, healthy, admitting bool) {
	put(p.Healthy, i, healthy)
	put(p.Admitting, i, admitting)
}

func put(set *bitset.Set, i int, member bool) {
	if member {
		set.Add(i)
	} else {
		set.Remove(i)
	}
}

// Len returns how many candidates there are.
func (p *Plan) Len() int { return len(p.tierOf) }

// TierOf returns the number of the tier of candidate i.
func (p *Plan) TierOf(i int) int { return int(p.tierOf[i]) }

// NeedsCaller reports whether iterators of the plan look at the caller that they are given.
func (p *Plan) NeedsCaller() bool { return p.extras != nil }

// First returns the candidate to pick without asking a selector: -1 where none is eligible, and
// [Undecided] where a selector has to choose. With advance the turn of ROUND_ROBIN moves on. A caller that
// counts nanoseconds looks at InOrder itself.
func (p *Plan) First(eligible *bitset.Set, advance bool) int {
	mode := Peek
	if advance {
		mode = Advance
	}
	return p.first(eligible, mode)
}

// first is First in the mode of an iterator. Where one word has the whole tier, the tier and its turn are
// picked from the candidates of one moment.
func (p *Plan) first(eligible *bitset.Set, mode Mode) int {
	if p.InOrder {
		return eligible.First()
	}
	for {
		head := eligible.Head()
		i := bits.TrailingZeros64(head)
		if head == 0 {
			if i = eligible.First(); i < 0 {
				return -1
			}
		}
		n := p.tierOf[i]
		t := &p.tiers[n]
		if t.rotation == nil {
			return i
		}
		if t.picker != nil {
			return Undecided
		}
		members := subset{mask: head >> uint(t.low) & t.all}
		if t.high > bitset.OneWord {
			members = p.members(t, eligible)
		}
		if picked, ok := t.turn(members, !mode.peeks(n)); ok && picked >= 0 {
			return t.low + picked
		} // else the tier has lost its last candidate, or this pick its turn
	}
}

// FastEnough reports whether candidate i has lately been as fast as the query wants.
func (p *Plan) FastEnough(i int) bool {
	return p.extras == nil || p.extras.maxLatency == 0 || p.latency(i) <= p.extras.maxLatency
}

// latency returns the latency of candidate i as it counts now. The plan has a bound of it.
func (p *Plan) latency(i int) time.Duration { return p.extras.vitals[i].Latency(p.extras.now()) }

// AnyEligible reports whether any candidate is eligible and fast enough.
func (p *Plan) AnyEligible(eligible *bitset.Set) bool {
	for i := eligible.Next(0, p.Len()); i >= 0; i = eligible.Next(i+1, p.Len()) {
		if p.FastEnough(i) {
			return true
		}
	}
	return false
}
