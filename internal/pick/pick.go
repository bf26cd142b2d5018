// Package pick decides which candidate of a query comes next.
//
// A [Plan] knows its candidates only as numbers from 0 on, in their order, cut into tiers. One strategy
// picks from a tier, and a tier is exhausted before the next one is tried, unless tiers spill over. An
// [Iterator] offers the candidates of a plan, each at most once. The [Rotation] of a tier and the
// [Faults] of its selector outlive the plan and belong to its owner.
//
// The package owns the order of picks, the turns of ROUND_ROBIN, and calls of a user's selector: they
// run in the goroutine of the lookup, and the order of the tier replaces the answer of a selector that
// panics, exits or is wrong. It must never hold a lock, block, start a goroutine, know what a candidate
// is, or allocate for a pick; only the second pick from one tier of more than 64 members may.
package pick

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
)

// Undecided is the result of [Plan.First] where a selector has to choose, which takes an [Iterator].
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
	// Request is the query; its Where.MaxLatency leaves slower candidates out of each pick.
	Request selection.Request
	// Policy says whether tiers spill over, and how fast measurements fade.
	Policy selection.Policy
	// Lookups counts the lookups that may spill over, for all plans of the query. It must not be nil
	// if the policy has spill-over.
	Lookups *atomic.Uint64
	// Epoch is the start of the clock of the vitals.
	Epoch *time.Time
	Hooks Hooks
}

// Tier describes one tier.
type Tier struct {
	// Size is its number of candidates, at least one.
	Size int
	// Strategy picks from them.
	Strategy selection.Strategy
	// Scope is the same for consecutive tiers that spill over to one another.
	Scope int
	// Faults counts what the selector does wrong. Default: counters of the plan.
	Faults *Faults
}

// Source describes candidates to [Plan.Init].
type Source interface {
	// OrderKey returns a number that identifies the candidate in every plan: more than 0, less than
	// 1 << 48, and ascending within a tier.
	OrderKey(candidate int) uint64
	// Rotation returns the rotation of a tier. It is called for tiers that are not in order.
	Rotation(tier int) *Rotation
	// Member returns what a selector sees of a candidate. Vitals and a track are needed only if
	// measured is set.
	Member(candidate int, measured bool) choice.Member
}

// Hooks receive reports in the goroutine of a lookup. Either may be nil.
type Hooks struct {
	// Fault receives what a selector did wrong, at most once a minute for each [Faults]. A panic is
	// still on the stack.
	Fault func(Failure)
	// Decided receives every pick that is not a preview.
	Decided func(Decision)
}

// Decision is a pick that was made.
type Decision struct {
	Tier, Candidate int
	Strategy        selection.Strategy
	// Candidates is the size of the tier, Eligible the number of candidates that could be picked,
	// and Asked the number that the iterator had offered before.
	Eligible, Candidates, Asked int
	// Detail is the selector's description of the candidate; nil: none.
	Detail *selection.Detail
}

// extras has what a plan needs if a tier has a picker.
type extras struct {
	hooks      Hooks
	policy     selection.Policy
	maxLatency time.Duration // 0: any
	epoch      *time.Time
	lookups    *atomic.Uint64   // nil: tiers are strict
	vitals     []*choice.Vitals // by candidate; nil: nothing is measured
	tracks     []*choice.Track
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
	picker    *picker   // nil: FALLBACK or ROUND_ROBIN, and nothing else to consider

	healthy, admitting *largeSubset // of a tier with a rotation and more than maskBits members
}

func (t *tier) size() int { return t.high - t.low }

// Init makes the plan. No candidate is healthy or admitting before [Plan.Set]. Calls of Init with a
// common [Source] must be serialised.
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
		of, t := &c.Tiers[n], &p.tiers[n]
		t.low, t.high, t.scope = low, low+of.Size, of.Scope
		low = t.high
		for i := t.low; i < t.high; i++ {
			p.tierOf[i] = int32(n)
		}
		if t.size() <= maskBits {
			t.all = ^uint64(0) >> (maskBits - t.size())
		}
		if !every && of.Strategy.Same(selection.Fallback()) {
			continue
		}
		p.InOrder = false
		p.addRotation(t, source.Rotation(n), source)
		if every || of.Strategy.Selector() != nil {
			p.addPicker(t, of, &c, source)
		}
	}
}

func (p *Plan) addRotation(t *tier, rotation *Rotation, source Source) {
	t.rotation, t.keys = rotation, make([]uint64, t.size())
	for i := range t.keys {
		t.keys[i] = source.OrderKey(t.low+i)<<positionBits | uint64(i)&positionMask
	}
	if t.all == 0 {
		t.healthy = &largeSubset{plan: p, tier: t, eligible: p.Healthy}
		t.admitting = &largeSubset{plan: p, tier: t, eligible: p.Admitting}
	}
}

func (p *Plan) addPicker(t *tier, of *Tier, c *Config, source Source) {
	if p.extras == nil {
		p.extras = &extras{
			hooks: c.Hooks, policy: c.Policy, maxLatency: c.Request.Where.MaxLatency, epoch: c.Epoch,
			vitals: make([]*choice.Vitals, len(p.tierOf)), tracks: make([]*choice.Track, len(p.tierOf)),
		}
		if c.Policy.SpillOver > 0 {
			p.extras.lookups = c.Lookups
		}
	}
	k := &picker{
		strategy: of.Strategy, selector: of.Strategy.Selector(), faults: of.Faults,
		roundRobin: of.Strategy.Same(selection.RoundRobin()),
	}
	if k.faults == nil {
		k.faults = &Faults{}
	}
	measured := k.selector != nil || p.extras.maxLatency > 0
	members := make([]choice.Member, t.size())
	for i := range members {
		m := source.Member(t.low+i, measured)
		members[i], p.extras.vitals[t.low+i], p.extras.tracks[t.low+i] = m, m.Vitals, m.Context
	}
	k.set = c.Request.View(c.Policy, members)
	t.picker = k
}

// Set makes candidate i a member of Healthy and Admitting, or not. Calls must be serialised.
func (p *Plan) Set(i int, healthy, admitting bool) {
	setMember(p.Healthy, i, healthy)
	setMember(p.Admitting, i, admitting)
}

func setMember(set *bitset.Set, i int, member bool) {
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

// NeedsCaller reports whether iterators of the plan read the [Caller].
func (p *Plan) NeedsCaller() bool { return p.extras != nil }

// First picks a candidate without a selector. It returns -1 if none is eligible, and [Undecided] if a
// selector has to choose. With advance the turn of ROUND_ROBIN moves on. If InOrder is set, the First
// method of the set has the same answer and is inlined.
func (p *Plan) First(eligible *bitset.Set, advance bool) int {
	mode := Peek
	if advance {
		mode = Advance
	}
	return p.first(eligible, mode)
}

// first is First in the mode of an iterator.
func (p *Plan) first(eligible *bitset.Set, mode Mode) int {
	if p.InOrder {
		return eligible.First()
	}
	if i := p.nextTurn(eligible, mode); i >= 0 {
		return i
	}
	return p.firstOfTiers(eligible, mode)
}

// firstOfTiers is first whatever the tiers are. A tier within the first word of the set is picked, and picked from, as
// it was at one moment.
func (p *Plan) firstOfTiers(eligible *bitset.Set, mode Mode) int {
	for {
		head := eligible.Head()
		i := bits.TrailingZeros64(head)
		if head == 0 {
			i = eligible.First()
		}
		if i < 0 {
			return -1
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
		} // else the last candidate has become ineligible, or another pick has taken the turn
	}
}

// nextTurn is first where it is common and short: the first tier takes turns, has no picker and at most a word of
// members, one of which is eligible, and the last pick was from this plan. It is -1 in any other case. It takes two
// thirds of the time that the loop in first takes for the same pick.
func (p *Plan) nextTurn(eligible *bitset.Set, mode Mode) int {
	t := &p.tiers[0]
	if t.rotation == nil || t.picker != nil || t.all == 0 {
		return -1
	}
	last := t.rotation.last.Load()
	before := uint(last & positionMask)
	if before >= uint(len(t.keys)) || t.keys[before] != last {
		return -1
	}
	members := eligible.Head() & t.all
	later := members >> (before + 1) << (before + 1)
	if later == 0 {
		later = members
	}
	picked := uint(bits.TrailingZeros64(later))
	if picked >= uint(len(t.keys)) || !mode.peeks(0) && !t.rotation.last.CompareAndSwap(last, t.keys[picked]) {
		return -1
	}
	return int(picked)
}

// PickSoonest returns a candidate among those allowed, whatever keeps calls away from them: the pick of the strategy
// of the one that comes back first, among its tier, or that one where the tier is in order. It is -1 if none is
// allowed; back returns the time until a candidate comes back.
func (p *Plan) PickSoonest(back func(i int) (retryIn time.Duration, allowed bool), mode Mode, c *Caller) int {
	var soonest time.Duration
	var among []int
	best := -1
	for i := range p.Len() {
		retryIn, allowed := back(i)
		if !allowed {
			continue
		}
		among = append(among, i)
		if best < 0 || retryIn < soonest {
			best, soonest = i, retryIn
		}
	}
	if best >= 0 {
		if picked := p.PickAmong(among, best, mode, c); picked >= 0 {
			return picked
		}
	}
	return best
}

// PickAmong returns the first pick of a tier's strategy from the given candidates, whatever keeps calls away from
// them: those in the tier of candidate like. It is -1 if the tier is in order, or its strategy picks none.
func (p *Plan) PickAmong(candidates []int, like int, mode Mode, c *Caller) int {
	t := &p.tiers[p.tierOf[like]]
	if t.rotation == nil || t.picker != nil && t.picker.selector == nil && !t.picker.roundRobin {
		return -1
	}
	among := bitset.New(p.Len())
	for _, i := range candidates {
		if i >= t.low && i < t.high {
			among.Add(i)
		}
	}
	it := p.Iterate(among)
	it.Mode = mode
	it.start = int32(t.low) //nolint:gosec // bounded by the number of candidates
	if t.picker != nil {
		return it.pick(t, p.members(t, among), 0, c)
	}
	if picked := p.take(t, among, mode == Advance); picked >= 0 {
		return t.low + picked
	}
	return -1
}

// FastEnough reports whether the latency of candidate i is within the bound of the query.
func (p *Plan) FastEnough(i int) bool {
	return p.extras == nil || p.extras.maxLatency == 0 || p.latency(i) <= p.extras.maxLatency
}

// latency returns the present latency of candidate i of a plan with a bound.
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
