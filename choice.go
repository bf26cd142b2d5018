package registry

import (
	"cmp"
	"context"
	"math/bits"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/selection"
)

// asker is what a selector can know of who asks.
type asker struct {
	ctx         context.Context //nolint:containedctx // it lives as long as the look-up
	key, caller string
	call        *leaseCall // nil for one that is not of leases
}

// had reports whether p was given to the call before.
func (by *asker) had(p *provider) bool {
	return by.call.had(p)
}

// wishes is what a plan knows where more is to be heeded than the two built-in
// strategies do by themselves. It is immutable.
type wishes struct {
	registry   *Registry
	slot       *queryPlan
	policy     selection.Policy
	maxLatency time.Duration      // zero: any
	tracks     []*selection.Track // of each candidate; nil where nobody looks at it
	spill      *atomic.Uint64     // numbers the look-ups; nil: groups are strict
}

// choice is how one of a run is chosen. It is immutable but for what it points at.
type choice struct {
	strategy selection.Strategy
	selector selection.Selector // nil: built in
	turns    bool               // ROUND_ROBIN
	group    *group
	set      *selection.Set
	cursor   *selection.Cursor

	// Of runs with more members than a mask has bits.
	steady, callable *members
}

// maskBits is how many members a run may have for a mask to say who is eligible.
const maskBits = 64

// members says who of a large run can be asked.
type members struct {
	plan      *plan
	eligible  *bitset.Set
	low, high int
	passed    []int // those that had their turn
}

// Has reports whether member i can be asked.
func (m *members) Has(i int) bool {
	at := m.low + i
	return i >= 0 && at < m.high && m.eligible.Has(at) && !slices.Contains(m.passed, i) && m.plan.inTime(at)
}

// Next returns the first member from i on that can be asked, or -1.
func (m *members) Next(i int) int {
	for at := m.eligible.Next(m.low+max(i, 0), m.high); at >= 0; at = m.eligible.Next(at+1, m.high) {
		if !slices.Contains(m.passed, at-m.low) && m.plan.inTime(at) {
			return at - m.low
		}
	}
	return -1
}

// inTime reports whether the candidate has lately been as fast as the query wants.
func (p *plan) inTime(at int) bool {
	return p.wishes == nil || p.wishes.maxLatency == 0 || p.slowness(at) <= p.wishes.maxLatency
}

// slowness returns the latency of a candidate as it counts now; zero where the query
// does not ask for it.
func (p *plan) slowness(at int) time.Duration {
	if p.wishes == nil || p.wishes.maxLatency == 0 {
		return 0
	}
	return p.candidates[at].vitals.Load().Latency(p.wishes.registry.now())
}

// begin picks where a walk begins.
func (w *walk) begin(by *asker) int {
	if at := w.spillTo(by); at >= 0 {
		r := &w.plan.runs[at]
		w.spilled, w.first, w.resume = true, int32(at), 0 //nolint:gosec // the number of a run
		if picked := w.choose(r, by); picked >= 0 {
			return picked
		}
	}
	return w.search(0, by)
}

// mostLevels bounds how many groups share a load.
const mostLevels = 16

// spillTo returns the run that this look-up falls to, or -1 where groups are strict.
// Groups share within a scope: the handler's own, then the global ones, then mocks.
func (w *walk) spillTo(by *asker) int {
	p := w.plan
	if p.wishes.spill == nil || w.glance {
		return -1
	}
	i := w.eligible.Next(0, len(p.candidates))
	if i < 0 {
		return -1
	}
	var eligible, all [mostLevels]int
	first, levels := int(p.runOf[i]), 0
	scope := p.candidates[i]
	for at := first; at < len(p.runs) && levels < mostLevels; at++ {
		r := &p.runs[at]
		if c := p.candidates[r.low]; c.definition.Handler != scope.definition.Handler || c.mock() != scope.mock() {
			break
		}
		eligible[levels], all[levels] = w.eligible.CountIn(r.low, r.high), r.high-r.low
		levels++
	}
	var number uint64
	switch key := cmp.Or(by.key, selection.KeyFrom(by.ctx)); {
	case key != "": // it stays with one group, so that it can stay with one provider
		number = selection.Mix(selection.Hash(key))
	case w.still:
		number = p.wishes.spill.Load()
	default:
		number = p.wishes.spill.Add(1) - 1
	}
	// Multiples of the golden ratio fall evenly, so shares are kept by few look-ups too.
	const golden = 0x9e3779b97f4a7c15
	share := float64(number*golden>>11) / (1 << 53)
	if level := p.wishes.policy.Spill(share, eligible[:levels], all[:levels]); level >= 0 {
		return first + level
	}
	return -1
}

// choose picks from a run in which there is a choice, leaving out who was offered.
func (w *walk) choose(r *run, by *asker) int {
	n, at := r.high-r.low, int(w.at)
	switch {
	case at < r.low || at >= r.high:
		w.passed, w.many = 0, nil
	case n <= maskBits:
		w.passed |= 1 << uint(at-r.low)
	case w.many == nil:
		w.many = &[]int{at - r.low}
	default:
		many := append(slices.Clip(*w.many), at-r.low) // a walk may have been copied
		w.many = &many
	}
	look := selection.Look{Asked: bits.OnesCount64(w.passed), Peek: w.peeks(w.plan.runOf[r.low]), Cursor: r.choice.cursor}
	if n <= maskBits {
		if look.Mask = w.eligible.Mask(r.low, n) &^ w.passed; look.Mask != 0 && w.plan.wishes.maxLatency > 0 {
			look.Mask = w.plan.allInTime(r.low, look.Mask)
		}
		if look.Mask == 0 {
			return -1
		}
	} else {
		if w.many != nil {
			look.Asked = len(*w.many)
		}
		look.Large = w.large(r)
		if look.Large.Next(0) < 0 {
			return -1
		}
	}
	if w.glance {
		return r.low
	}
	picked := w.chooseFrom(r, &look, by)
	if picked < 0 {
		return -1
	}
	if decisions := w.plan.wishes.registry.decisions; decisions != nil && !w.silent && !by.had(w.plan.candidates[r.low+picked]) {
		w.decide(r, picked, &look, decisions)
	}
	return r.low + picked
}

// allInTime returns those of the mask that are as fast as the query wants.
func (p *plan) allInTime(low int, mask uint64) (fast uint64) {
	for rest := mask; rest != 0; rest &= rest - 1 {
		if i := bits.TrailingZeros64(rest); p.inTime(low + i) {
			fast |= 1 << uint(i)
		}
	}
	return fast
}

func (w *walk) large(r *run) *members {
	if w.many == nil {
		if w.eligible == w.plan.steady {
			return r.choice.steady
		}
		return r.choice.callable
	}
	return &members{plan: w.plan, eligible: w.eligible, low: r.low, high: r.high, passed: *w.many}
}

// chooseFrom asks the strategy of the run, and answers for it where it fails.
func (w *walk) chooseFrom(r *run, look *selection.Look, by *asker) int {
	c := r.choice
	if c.selector == nil {
		v := c.set.View(*look)
		switch {
		case !c.turns:
			return v.Next(0)
		case look.Asked == 0:
			return r.turn(&v, !look.Peek)
		}
		if at := v.Next(int(w.at) - r.low + 1); at >= 0 {
			return at
		}
		return v.Next(0)
	}
	look.Epoch = &w.plan.wishes.registry.epoch
	look.Context, look.Key, look.Caller = by.ctx, by.key, by.caller
	if look.Asked == 0 {
		w.turn = c.cursor.Turns()
	}
	look.First = w.turn // whoever only looks draws the same as the call
	at, failed := c.ask(w, look)
	if !failed && uint(at) < uint(r.high-r.low) {
		if look.Large == nil && look.Mask>>uint(at)&1 != 0 || look.Large != nil && look.Large.Has(at) {
			return at
		}
		if look.Large != nil { // it may have been eligible a moment ago
			return look.Large.Next(0)
		}
	}
	if !failed {
		c.group.faults.note(w, c, faultRange, nil)
	}
	v := c.set.View(*look)
	return v.Next(0)
}

// turn is run.next for a view.
func (r *run) turn(v *selection.View, move bool) int {
	for {
		last := r.rotation.last.Load()
		at := v.Next(r.after(last))
		if at < 0 {
			at = v.Next(0)
		}
		if at < 0 || !move || r.rotation.last.CompareAndSwap(last, r.keys[at]) {
			return at
		}
	}
}

const (
	// slowPick is what takes a selector too long, and timedPicks how many picks there
	// are for one that is timed: the clock costs more than a pick.
	slowPick   = time.Millisecond
	timedPicks = 32
)

// ask asks the selector. It is a user's code: it runs in its caller's goroutine, and
// nothing is held.
func (c *choice) ask(w *walk, look *selection.Look) (at int, failed bool) {
	returned := false
	defer func() {
		if !returned {
			failed = true
			if value := recover(); value != nil {
				c.group.faults.note(w, c, faultPanic, value)
			} else { // the goroutine goes on exiting
				c.group.faults.note(w, c, faultExit, nil)
			}
		}
	}()
	if !look.Peek && rand.Uint32()%timedPicks == 0 { //nolint:gosec // a sample
		began := w.plan.wishes.registry.now()
		look.Now = max(began, 1)
		at = c.selector.Pick(c.set.View(*look))
		c.group.faults.timed(w, c, w.plan.wishes.registry.now()-began)
	} else {
		at = c.selector.Pick(c.set.View(*look))
	}
	returned = true
	return at, false
}

// selectorFault is what a selector can do wrong.
type selectorFault uint8

const (
	faultPanic selectorFault = iota
	faultExit
	faultRange
	faultSlow
	numFaults
)

// faults counts what a group's selector does wrong.
type faults struct {
	counts [numFaults]atomic.Uint64
	told   atomic.Int64 // when an event last spoke of it, on the registry's clock; 0: never
	slow   atomic.Bool  // the last pick that was timed was slow
}

// timed counts a pick that took too long. It tells only of the second in a row: one can
// be a pause of the goroutine, of which the selector knows nothing.
func (f *faults) timed(w *walk, c *choice, took time.Duration) {
	switch slow := took >= slowPick; {
	case w.silent:
	case !slow:
		if f.slow.Load() {
			f.slow.Store(false)
		}
	case f.slow.Swap(true):
		f.note(w, c, faultSlow, nil)
	default:
		f.counts[faultSlow].Add(1)
	}
}

// note counts a fault in earnest, and tells of it once a minute.
func (f *faults) note(w *walk, c *choice, what selectorFault, value any) {
	if w.silent {
		return
	}
	f.counts[what].Add(1)
	r := w.plan.wishes.registry
	now, told := max(int64(r.now()), 1), f.told.Load()
	if told != 0 && now-told < int64(time.Minute) || !f.told.CompareAndSwap(told, now) {
		return
	}
	change := event.Event{Kind: event.SelectorFailed, Service: w.plan.wishes.slot.service.name}
	words := [numFaults]string{"panicked", "exited its goroutine", "gave an answer out of range", "was slow"}[what]
	change.Reason = "strategy " + c.strategy.String() + " " + words
	if what == faultPanic {
		change.Err = &PanicError{Value: value, Stack: debug.Stack()}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bus.publish(change)
}

// wishes reports whether every run of the slot's plan has to be chosen from, whatever
// its strategy. Caller holds Registry.mu.
func (s *service) wishes(target *queryPlan) bool {
	return s.policy.SpillOver > 0 || target.query.Where.MaxLatency > 0 || s.registry.decisions != nil
}

// giveChoices gives the plan what its selectors need; all says that there is a choice
// in each run. Caller holds Registry.mu.
func (s *service) giveChoices(target *queryPlan, p *plan, all bool) {
	p.leastBad = s.policy.LeastBad
	kept := target.tracks
	target.tracks = nil
	for at := range p.runs {
		r := &p.runs[at]
		if g := p.candidates[r.low].group; all || g.strategy.Selector() != nil {
			s.giveChoice(target, p, r, kept)
		}
	}
	if p.wishes != nil && s.policy.SpillOver > 0 {
		if target.spill == nil {
			target.spill = &atomic.Uint64{}
		}
		p.wishes.spill = target.spill
	}
}

func (s *service) giveChoice(target *queryPlan, p *plan, r *run, kept map[*provider]*selection.Track) {
	if p.wishes == nil {
		p.wishes = &wishes{
			registry: s.registry, slot: target, policy: s.policy, maxLatency: target.query.Where.MaxLatency,
			tracks: make([]*selection.Track, len(p.candidates)),
		}
		target.tracks = make(map[*provider]*selection.Track)
	}
	g := p.candidates[r.low].group
	c := &choice{strategy: g.strategy, selector: g.strategy.Selector(), turns: g.strategy == StrategyRoundRobin, group: g}
	measured := c.selector != nil || p.wishes.maxLatency > 0
	set := make([]selection.Member, 0, r.high-r.low)
	for at := r.low; at < r.high; at++ {
		m := selection.Member{Profile: p.candidates[at].profile()}
		if measured {
			track := kept[p.candidates[at]]
			if track == nil {
				track = &selection.Track{}
			}
			m.Vitals, m.Context = p.candidates[at].measure(), track
			target.tracks[p.candidates[at]], p.wishes.tracks[at] = track, track
		}
		set = append(set, m)
	}
	c.set = selection.NewSet(requestOf(&target.query, s.name), s.policy, set)
	if r.rotation.cursor == nil {
		r.rotation.cursor = selection.NewCursor(rand.Uint64()) //nolint:gosec // shares, not secrets
	}
	c.cursor = r.rotation.cursor
	if r.high-r.low > maskBits {
		c.steady = &members{plan: p, eligible: p.steady, low: r.low, high: r.high}
		c.callable = &members{plan: p, eligible: p.callable, low: r.low, high: r.high}
	}
	r.choice = c
}

func requestOf(q *Query, service string) selection.Request {
	return selection.Request{
		// Copies: selectors see them.
		Service: service, Handler: q.Handler, Require: slices.Clone(q.Require), Prefer: slices.Clone(q.Prefer), Near: q.Near, Where: q.Where.Clone(),
	}
}

// profile is what selectors and requirements see of the provider.
func (p *provider) profile() selection.Profile {
	d := &p.definition
	return selection.Profile{
		Service: d.Service, Handler: d.Handler, Name: d.Name, Capabilities: d.Capabilities, Tags: d.Tags,
		Metadata: d.Metadata, Version: d.Version, Region: d.Region, Weight: d.Weight, Cost: d.Cost,
	}
}

// measure returns the vitals of the provider, which it has from the first time on that
// somebody looks at them. Caller holds Registry.mu.
func (p *provider) measure() *selection.Vitals {
	known := p.vitals.Load()
	if known == nil {
		known = selection.NewVitals(p.ready, p.service.policy.Decay)
		p.vitals.Store(known)
		p.showVitals()
	}
	return known
}

// showVitals lets selectors know of the provider's health. Caller holds Registry.mu.
func (p *provider) showVitals() {
	known := p.vitals.Load()
	if known == nil {
		return
	}
	known.SetHealth(p.scoreLocked(), p.trendLocked())
}

// track returns what is measured of p for the query of the walk; nil where nobody
// looks at it.
func (w *walk) track(p *provider) *selection.Track {
	if w.plan == nil || w.plan.wishes == nil {
		return nil
	}
	at := int(w.at)
	if at < 0 || w.plan.candidates[at] != p { // not by the walk: it waited for a place, or all are asked
		if at = slices.Index(w.plan.candidates, p); at < 0 {
			return nil
		}
	}
	return w.plan.wishes.tracks[at]
}
