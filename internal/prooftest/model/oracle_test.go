package model_test

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

// oracle is a registry without concurrency, caches and indexes: it knows the time, keeps
// everything in lists, and filters and sorts them for each question.
type oracle struct {
	now        time.Duration
	providers  []*provider
	gone       []*provider // removed: their counts are still checked
	strategies map[group]selection.Strategy
	turns      map[string]map[group]turn // by query: the last pick
	leases     []*lease
	domains    map[string]*domain // the shared ones
	seed       int                // where rotations begin
	joined     int
	calls      int // that had an outcome
	hits       uint64
	misses     uint64

	defect string // what it gets wrong on purpose, to see that the proof notices
}

// group is a priority group. Real providers and mocks of one take turns of their own.
type group struct {
	handler string
	number  int
	mock    bool
}

func (g group) whole() group { return group{g.handler, g.number, false} }

// turn is a place in the order of a group.
type turn struct{ rank, order int }

type provider struct {
	name         string
	handler      string
	number       int
	priority     registry.Priority
	capabilities []string
	mock         bool
	joined       int
	order        int           // among equals: when the name joined, also where that was replaced since
	threshold    int           // failures in a row that open its breaker
	recovery     time.Duration // how long that stays open
	wins, slots  int           // trials that close it, and how many at once
	window       int           // 0: unknown
	domain       *domain

	sick       bool
	idle       bool // its weight is 0
	state      status.BreakerState
	generation int // of the breaker: what was admitted into another one says nothing
	inARow     int
	won        int
	trials     int
	until      time.Duration // the end of the open time
	rest       rest          // of this provider alone
	inside     int

	successes, failures, ignored, limited uint64
}

// lease is a provider that is held.
type lease struct {
	of         *provider
	call       int
	generation int
	trial      bool
	answered   bool // its answer has begun: that it goes on for long says nothing of its provider
	freed      bool // the same, of a trial, which keeps no other one out then
	began      time.Duration
	expires    time.Duration
}

func newOracle(seed int) *oracle {
	return &oracle{
		strategies: make(map[group]selection.Strategy), turns: make(map[string]map[group]turn), domains: make(map[string]*domain), seed: seed,
	}
}

func (p *provider) group() group { return group{p.handler, p.number, p.mock} }
func (p *provider) turn() turn   { return turn{p.priority.Rank(), p.order} }
func (p *provider) full() bool   { return p.domain.places > 0 && p.domain.inside >= p.domain.places }

// cooling reports whether a cooldown keeps it away, its own or its domain's.
func (p *provider) cooling() bool { return p.rest.most > 0 || p.domain.rest.most > 0 }

// steady reports whether Get gives it.
func (p *provider) steady() bool {
	return !p.sick && !p.idle && !p.cooling() && p.state == status.BreakerClosed
}

// callable reports whether a call may enter it.
func (p *provider) callable() bool {
	trial := p.state == status.BreakerHalfOpen && p.trials < p.slots
	return !p.sick && !p.idle && !p.cooling() && (p.state == status.BreakerClosed || trial)
}

func (p *provider) has(words []string) bool {
	for _, word := range words {
		if !slices.Contains(p.capabilities, word) {
			return false
		}
	}
	return true
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// candidates returns what the query wants, in order.
func (o *oracle) candidates(q registry.Query) (wanted []*provider) {
	for _, p := range o.providers {
		if (p.handler == q.Handler || p.handler == "" && !q.OwnOnly) && p.has(q.Require) {
			wanted = append(wanted, p)
		}
	}
	slices.SortStableFunc(wanted, func(a, b *provider) int {
		return cmp.Or(
			cmp.Compare(number(a.mock), number(b.mock)),
			cmp.Compare(number(a.handler == ""), number(b.handler == "")),
			cmp.Compare(a.number, b.number), cmp.Compare(a.priority.Rank(), b.priority.Rank()), cmp.Compare(a.order, b.order),
		)
	})
	return wanted
}

// order returns the candidates that may be entered, in that order: group by group, and a
// rotating one beginning behind the member that was picked last, or where the seed says.
func (o *oracle) order(q registry.Query, may func(*provider) bool) (order []*provider) {
	o.forget(q)
	rest := o.candidates(q)
	for len(rest) > 0 {
		g := rest[0].group()
		end := slices.IndexFunc(rest, func(p *provider) bool { return p.group() != g })
		if end < 0 {
			end = len(rest)
		}
		members := slices.Clone(rest[:end])
		rest = rest[end:]
		if o.rotates(g) {
			first := o.begin(q, g, members)
			members = slices.Concat(members[first:], members[:first])
		}
		order = append(order, slices.DeleteFunc(members, func(p *provider) bool { return !may(p) })...)
	}
	return order
}

// begin returns which of the members of a group the rotation of the query comes to next.
func (o *oracle) begin(q registry.Query, g group, members []*provider) int {
	last, known := o.turns[key(q)][g]
	if !known && o.defect != "begins with the first" {
		return (o.seed - 1) % len(members)
	}
	return max(0, slices.IndexFunc(members, func(p *provider) bool {
		return cmp.Or(cmp.Compare(p.turn().rank, last.rank), cmp.Compare(p.turn().order, last.order)) > 0
	}))
}

func key(q registry.Query) string { return fmt.Sprint(q.Handler, q.OwnOnly, q.Require, q.TryRefused) }

func (o *oracle) rotates(g group) bool {
	return o.strategies[g.whole()] == registry.StrategyRoundRobin && o.defect != "never rotates"
}

// picked moves the rotation of the provider's group, if it has one.
func (o *oracle) picked(q registry.Query, p *provider) {
	if o.rotates(p.group()) {
		o.turns[key(q)][p.group()] = p.turn()
	}
}

// forget drops the turns of groups without a member for the query: its next member begins a
// new rotation.
func (o *oracle) forget(q registry.Query) {
	turns := o.turns[key(q)]
	if turns == nil {
		turns = make(map[group]turn)
		o.turns[key(q)] = turns
	}
	alive := make(map[group]bool)
	for _, p := range o.candidates(q) {
		alive[p.group()] = o.rotates(p.group())
	}
	for g := range turns {
		if !alive[g] {
			delete(turns, g)
		}
	}
}

// join adds a provider, which took the place of another one where there was one of that
// name; conflict says that its group has another strategy.
func (o *oracle) join(p *provider, domain string, places int, wanted selection.Strategy) (conflict bool) {
	replaced := o.named(p.name)
	present, exists := o.strategies[p.group().whole()]
	alone := replaced != nil && replaced.group().whole() == p.group().whole() && o.members(p.group().whole()) == 1
	if exists && wanted != (selection.Strategy{}) && wanted != present && !alone {
		return true
	}
	if replaced != nil {
		o.leave(replaced)
		_, exists = o.strategies[p.group().whole()]
	}
	if !exists {
		o.strategies[p.group().whole()] = cmp.Or(wanted, registry.StrategyFallback)
	}
	o.joined++
	p.joined, p.order = o.joined, o.joined
	o.enterDomain(p, domain, places)
	if replaced != nil {
		p.order = replaced.order
		if replaced.domain == p.domain {
			p.domain.forgiveKey()
		}
	}
	o.providers = append(o.providers, p)
	return false
}

func (o *oracle) named(name string) *provider {
	for _, p := range o.providers {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (o *oracle) members(g group) (count int) {
	for _, p := range o.providers {
		count += number(p.group().whole() == g)
	}
	return count
}

func (o *oracle) leave(p *provider) {
	o.providers = slices.DeleteFunc(o.providers, func(other *provider) bool { return other == p })
	o.gone = append(o.gone, p)
	o.leaveDomain(p)
	o.endGroup(p.group().whole())
}

func (o *oracle) endGroup(g group) {
	if o.members(g) == 0 {
		delete(o.strategies, g)
	}
}

func (o *oracle) move(p *provider, to int) {
	from, strategy := p.group().whole(), o.strategies[p.group().whole()]
	p.number = to
	o.endGroup(from)
	if _, exists := o.strategies[p.group().whole()]; !exists {
		o.strategies[p.group().whole()] = strategy
	}
}

// turnTo moves the breaker.
func (p *provider) turnTo(state status.BreakerState) {
	p.state = state
	p.generation++
	p.inARow, p.won, p.trials = 0, 0, 0
}

func (o *oracle) open(p *provider, openFor time.Duration) {
	p.turnTo(status.BreakerOpen)
	p.until = o.now + openFor
}

// newCall returns the number of another call.
func (o *oracle) newCall() int {
	o.calls++
	return o.calls
}

// enter admits an attempt of a call.
func (o *oracle) enter(p *provider, call int) *lease {
	l := &lease{of: p, call: call, generation: p.generation, trial: p.state == status.BreakerHalfOpen, began: o.now}
	p.trials += number(l.trial)
	p.inside++
	p.domain.inside++
	return l
}

// answer notes that the answer of an attempt has begun.
func (o *oracle) answer(l *lease) {
	l.answered = true
	if l.trial && !l.freed && o.defect != "lets long trials keep others out" {
		l.of.trials -= number(l.generation == l.of.generation)
		l.freed = true
	}
}

// settle ends an attempt with an outcome.
func (o *oracle) settle(l *lease, out outcome) {
	p := l.of
	p.inside--
	p.domain.inside--
	o.cool(p, out, l.call)
	switch out.counts {
	case "success":
		p.successes++
	case "failure":
		p.failures++
	case "ignored":
		p.ignored++
	case "limited":
		p.limited++
	}
	if l.generation != p.generation && o.defect != "learns from what began before" {
		return
	}
	if l.trial && !l.freed {
		p.trials--
	}
	switch {
	case slices.Contains(o.gone, p), out.blame == "none":
	case out.blame == "failure" && p.state == status.BreakerClosed:
		if p.inARow++; p.inARow >= p.threshold {
			o.open(p, p.recovery)
		}
	case out.blame == "failure" && l.trial:
		o.open(p, p.recovery)
	case out.blame == "success" && p.state == status.BreakerClosed:
		p.inARow = 0
	case out.blame == "success" && l.trial:
		if p.won++; p.won >= p.wins {
			p.turnTo(status.BreakerClosed)
		}
	}
}

// pass lets time go by, with what is due in it in the order in which it is due.
func (o *oracle) pass(d time.Duration) {
	for end := o.now + d; ; {
		due, happen := end+1, func() {}
		sooner := func(at time.Duration, what func()) {
			if at < due {
				due, happen = at, what
			}
		}
		for _, p := range o.providers {
			if p.state == status.BreakerOpen {
				last := time.Duration(1) // it is still open in the last nanosecond
				if o.defect == "recovers a nanosecond early" {
					last = 0
				}
				sooner(p.until+last, func() { p.turnTo(status.BreakerHalfOpen) })
			}
		}
		for _, l := range o.leases {
			out := forgotten
			if l.answered && o.defect != "blames long answers" {
				out = unread
			}
			sooner(l.expires, func() { o.end(l, out) })
		}
		if due > end {
			o.now = end
			return
		}
		o.now = max(o.now, due)
		happen()
	}
}

// end ends a lease.
func (o *oracle) end(l *lease, out outcome) {
	o.leases = slices.DeleteFunc(o.leases, func(other *lease) bool { return other == l })
	o.settle(l, out)
}
