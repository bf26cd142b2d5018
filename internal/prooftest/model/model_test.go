// Package model_test compares the registry with a naive one, step by step, on random
// sequences of operations, which rapid draws and shrinks.
package model_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/capreg/registry"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// TestMain sets what rapid does unless the command line says so: the same cases in every
// run, and more of them than usual. For others: -rapid.seed=7 -rapid.checks=100000.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.seed": "1", "rapid.checks": "1500", "rapid.steps": "60", "rapid.nofailfile": "true", "rapid.shrinktime": "3s"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	flag.Parse()
	// With more threads than cores the system interrupts operations in their midst, which
	// is when histories are worth a look.
	runtime.GOMAXPROCS(16 * runtime.NumCPU())
	goleak.VerifyTestMain(m)
}

var (
	services = registry.NewService[string]("model")
	errModel = errors.New("model")
)

// outcome is the end of an attempt with its consequences; the table of the
// documentation in other words.
type outcome struct {
	name   string
	err    error
	counts string // success, failure, ignored, limited
	blame  string // success, failure, none
	next   string // yes, no; always: also a call that must not run twice; refused: only when the query allows it
	cool   cool
}

// asked is the delay that a server asks for.
const asked = 10 * time.Second

var (
	fine      = outcome{"fine", nil, "success", "success", "no", cool{}}
	forgotten = outcome{"forgotten", nil, "failure", "failure", "no", cool{}}
	unread    = outcome{"forgotten after its answer had begun", nil, "ignored", "none", "no", cool{}}
	tooLong   = outcome{"too long", as(verdict.ClassTooLong, 0), "success", "success", "always", cool{}}

	cut = outcome{"cut", as(verdict.ClassCut, 0), "ignored", "none", "yes", cool{}}

	long     = cool{shared: true, first: 5 * time.Minute, last: time.Hour, parks: true}
	outcomes = []outcome{
		fine, tooLong, cut,
		{"unknown", errModel, "failure", "failure", "yes", cool{}},
		{"server error", as(verdict.ClassServerError, 0), "failure", "failure", "yes", cool{}},
		{"server error for a while", as(verdict.ClassServerError, asked), "failure", "failure", "yes", cool{after: asked}},
		{"not sent", verdict.NotSent(errModel), "failure", "failure", "always", cool{}},
		{"rate limited", verdict.RateLimited(errModel, asked), "limited", "none", "always", cool{true, 2 * time.Second, time.Minute, asked, false, false}},
		{
			"rate limited, of a model", verdict.As(errModel, verdict.Verdict{Class: verdict.ClassRateLimited, Scope: verdict.ScopeProvider}),
			"limited", "none", "always",
			cool{first: 2 * time.Second, last: time.Minute},
		},
		{"overloaded", as(verdict.ClassOverloaded, asked), "limited", "none", "yes", cool{first: 5 * time.Second, last: 30 * time.Second, after: asked}},
		{"overloaded, no delay", as(verdict.ClassOverloaded, 0), "limited", "none", "yes", cool{first: 5 * time.Second, last: 30 * time.Second}},
		{"dead key", verdict.Fatal(errModel, 0), "limited", "none", "always", long},
		{"dead key, with a delay", verdict.Fatal(errModel, 10*asked), "limited", "none", "always", cool{true, long.first, long.last, 10 * asked, false, true}},
		{"unauthenticated", as(verdict.ClassUnauthenticated, 0), "limited", "none", "always", cool{true, long.first, long.last, 0, true, true}},
		{"not allowed", as(verdict.ClassNotAllowed, 0), "limited", "none", "always", cool{}},
		{"gone there", as(verdict.ClassNotFound, 0), "ignored", "none", "always", cool{first: time.Minute, last: 10 * time.Minute}},
		{"ask elsewhere", as(verdict.ClassElsewhere, 0), "ignored", "none", "always", cool{}},
		{"not for it", verdict.Cannot(errModel), "ignored", "none", "always", cool{}},
		{"unsupported there", as(verdict.ClassUnsupported, 0), "success", "success", "yes", cool{}},
		{"bad request", verdict.Permanent(errModel), "success", "success", "no", cool{}},
		{"refused by the resource", as(verdict.ClassResource, 0), "success", "success", "no", cool{}},
		{"refused", as(verdict.ClassRefused, 0), "success", "success", "refused", cool{}},
		{"ignored", verdict.Ignore(errModel), "ignored", "none", "no", cool{}},
		{"cannot", as(verdict.ClassCannot, 0), "ignored", "none", "always", cool{}},
	}
)

func as(class verdict.Class, after time.Duration) error {
	return verdict.As(errModel, verdict.Verdict{Class: class, After: after})
}

const leaseTime = 30 * time.Second

// machine is the registry with its oracle.
type machine struct {
	t       *testing.T
	reg     *registry.Registry
	oracle  *oracle
	began   time.Time
	handles map[*provider]*registry.Registration
	held    map[*lease]*registry.Lease[string]
}

func (m *machine) drawQuery(rt *rapid.T) registry.Query {
	q := registry.Query{Handler: rapid.SampledFrom([]string{"", "", "h", "i"}).Draw(rt, "handler")}
	q.OwnOnly = q.Handler != "" && rapid.Bool().Draw(rt, "own only")
	q.TryRefused = rapid.Bool().Draw(rt, "try refused")
	for _, word := range []string{"x", "y"} {
		if rapid.IntRange(0, 2).Draw(rt, "require "+word) == 0 {
			q.Require = append(q.Require, word)
		}
	}
	return q
}

// drawProvider returns a registered provider; nil when there is none.
func (m *machine) drawProvider(rt *rapid.T) *provider {
	if len(m.oracle.providers) == 0 {
		return nil
	}
	names := make([]string, len(m.oracle.providers))
	for i, p := range m.oracle.providers {
		names[i] = p.name
	}
	return m.oracle.named(rapid.SampledFrom(names).Draw(rt, "provider"))
}

var priorities = []registry.Priority{
	registry.PriorityNormal, registry.PriorityCritical, registry.PriorityHigh, registry.PriorityLow, registry.PriorityFallback,
}

// Register adds a provider under one of a few names, some of which are taken.
func (m *machine) Register(rt *rapid.T) {
	p := &provider{
		name:     rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(rt, "name"),
		handler:  rapid.SampledFrom([]string{"", "", "h"}).Draw(rt, "handler"),
		number:   rapid.IntRange(-1, 1).Draw(rt, "group"),
		priority: rapid.SampledFrom(priorities).Draw(rt, "priority"),
		mock:     rapid.IntRange(0, 5).Draw(rt, "mock") == 5, threshold: rapid.IntRange(1, 3).Draw(rt, "threshold"),
		recovery: rapid.SampledFrom([]time.Duration{time.Second, time.Minute}).Draw(rt, "recovery"),
		window:   rapid.SampledFrom([]int{0, 0, 8, 16}).Draw(rt, "window"),
		idle:     rapid.IntRange(0, 6).Draw(rt, "idle") == 6,
	}
	domain := rapid.SampledFrom([]string{"", "", "two places", "any number"}).Draw(rt, "domain")
	places := map[string]int{"two places": 2, "": rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(rt, "places")}[domain]
	p.wins = rapid.IntRange(1, 2).Draw(rt, "wins")
	p.slots = rapid.IntRange(1, p.wins).Draw(rt, "slots")
	for _, word := range []string{"x", "y"} {
		if rapid.Bool().Draw(rt, word) {
			p.capabilities = append(p.capabilities, word)
		}
	}
	replace := rapid.Bool().Draw(rt, "replace")
	wanted := rapid.SampledFrom([]selection.Strategy{{}, registry.StrategyFallback, registry.StrategyRoundRobin}).Draw(rt, "strategy")
	input := registry.Provider[string]{
		Name: p.name, Instance: p.name, Handler: p.handler, Group: p.number, Priority: p.priority, Mock: p.mock,
		Capabilities: p.capabilities, Strategy: wanted, Replace: replace, AttemptTimeout: leaseTime,
		Window: p.window, NoTraffic: p.idle, Domain: domain,
		Breaker: registry.BreakerPolicy{FailureThreshold: p.threshold, RecoveryTimeout: p.recovery, SuccessThreshold: p.wins, TrialSlots: p.slots},
		Retry:   registry.RetryPolicy{Budget: 1 << 20},
	}
	if places > 0 {
		input.Limits = registry.LimitPolicy{MaxConcurrent: places, NoQueue: true}
	}
	handle, err := services.Register(m.t.Context(), m.reg, input)
	switch taken := m.oracle.named(p.name) != nil; {
	case taken && !replace:
		require.ErrorIs(rt, err, registry.ErrExists)
	case m.oracle.join(p, domain, places, wanted):
		require.ErrorIs(rt, err, registry.ErrConflict)
	default:
		require.NoError(rt, err)
		m.handles[p] = handle
	}
	m.adopt(rt)
}

// Unregister removes a provider; its leases go on.
func (m *machine) Unregister(rt *rapid.T) {
	p := m.drawProvider(rt)
	if p == nil {
		return
	}
	m.oracle.leave(p)
	go func() { _ = m.handles[p].Unregister(context.WithoutCancel(m.t.Context())) }() // it waits for leases
	synctest.Wait()
}

// Mark takes a provider out by its health, or back in.
func (m *machine) Mark(rt *rapid.T) {
	p := m.drawProvider(rt)
	if p == nil {
		return
	}
	p.sick = rapid.Bool().Draw(rt, "sick")
	if p.sick {
		require.NoError(rt, m.handles[p].MarkUnhealthy(errModel))
	} else {
		require.NoError(rt, m.handles[p].MarkHealthy())
	}
}

// ForceOpen opens a breaker by hand.
func (m *machine) ForceOpen(rt *rapid.T) {
	p := m.drawProvider(rt)
	if p == nil {
		return
	}
	openFor := rapid.SampledFrom([]time.Duration{time.Second, time.Hour}).Draw(rt, "for")
	m.oracle.open(p, openFor)
	require.NoError(rt, m.handles[p].ForceOpen(openFor, "model"))
}

// Reset closes a breaker and ends a cooldown.
func (m *machine) Reset(rt *rapid.T) {
	p := m.drawProvider(rt)
	if p == nil {
		return
	}
	m.reset(rt, p)
	m.adopt(rt)
}

func (m *machine) reset(rt *rapid.T, p *provider) {
	p.turnTo(status.BreakerClosed)
	p.rest.reset()
	p.domain.rest.reset()
	require.NoError(rt, m.handles[p].Reset())
}

// Set changes the place of a provider, or the strategy of its group.
func (m *machine) Set(rt *rapid.T) {
	p := m.drawProvider(rt)
	if p == nil {
		return
	}
	switch rapid.IntRange(0, 3).Draw(rt, "what") {
	case 0:
		before := p.priority
		p.priority = rapid.SampledFrom(priorities).Draw(rt, "priority")
		previous, err := m.handles[p].SetPriority(p.priority)
		require.NoError(rt, err)
		require.Equal(rt, before, previous)
	case 1:
		before := p.number
		m.oracle.move(p, rapid.IntRange(-1, 1).Draw(rt, "group"))
		previous, err := m.handles[p].SetGroup(p.number)
		require.NoError(rt, err)
		require.Equal(rt, before, previous)
	case 2:
		strategy := rapid.SampledFrom([]selection.Strategy{registry.StrategyFallback, registry.StrategyRoundRobin}).Draw(rt, "strategy")
		before := m.oracle.strategies[p.group().whole()]
		m.oracle.strategies[p.group().whole()] = strategy
		previous, err := m.handles[p].SetStrategy(strategy)
		require.NoError(rt, err)
		require.Equal(rt, before, previous)
	case 3:
		before := 1 - number(p.idle)
		p.idle = rapid.Bool().Draw(rt, "idle")
		previous, err := m.handles[p].SetWeight(float64(1 - number(p.idle)))
		p.idle = p.idle && m.oracle.defect != "gives to a weight of 0"
		require.NoError(rt, err)
		require.InDelta(rt, before, previous, 0)
	}
}

// Pass lets time go by: to the nanosecond before, at and after what is due.
func (m *machine) Pass(rt *rapid.T) {
	d := rapid.SampledFrom([]time.Duration{
		1, time.Millisecond, time.Second - 1, time.Second, asked, time.Minute, leaseTime, leaseTime + time.Second, time.Hour,
	}).Draw(rt, "time")
	m.pass(d)
	m.adopt(rt)
}

func (m *machine) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
	m.oracle.pass(d)
}

// check compares all that can be read.
func (m *machine) check(rt *rapid.T) {
	o := m.oracle
	stats := m.reg.Stats()
	eligible := 0
	for _, p := range o.providers {
		eligible += number(p.callable())
	}
	require.Equal(rt, []any{len(o.providers), eligible, o.hits, o.misses, o.hits + o.misses},
		[]any{stats.Providers, stats.Eligible, stats.Hits, stats.Misses, stats.Lookups}, "providers, eligible, hits, misses, look-ups")
	for p, handle := range m.handles {
		info := handle.Info()
		require.Equal(rt, []uint64{p.successes, p.failures, p.ignored, p.limited, uint64(p.inside)},
			[]uint64{info.Successes, info.Failures, info.Ignored, info.Limited, info.InFlight}, "%s: successes, failures, ignored, limited, in flight", p.name)
		if !slices.Contains(o.providers, p) {
			require.False(rt, info.Eligible)
			continue
		}
		require.Equal(rt, []any{p.state, p.inARow, p.won, p.trials}, []any{
			info.Breaker.State, info.Breaker.ConsecutiveFailures, info.Breaker.TrialSuccesses, info.Breaker.TrialsInFlight,
		}, "%s: breaker, failures in a row, trials won and in flight", p.name)
		require.Equal(rt, p.callable(), info.Eligible, p.name)
		require.Equal(rt, p.cooling(), !info.Cooldown.Until.IsZero(), "%s: cooling", p.name)
		require.Equal(rt, []any{p.number, p.priority, o.strategies[p.group().whole()]}, []any{info.Group, info.Priority, info.Strategy}, p.name)
	}
	for _, q := range []registry.Query{{}, {Handler: "h"}, {Require: []string{"x"}}} {
		winner := ""
		for _, p := range slices.Backward(o.order(q, func(p *provider) bool { return p.callable() && !p.full() })) {
			winner = p.name
		}
		require.Equal(rt, winner, services.Bind(m.reg, q).Explain().Winner, "winner of %v", q)
	}
	var having []string
	for _, p := range o.providers {
		if p.has([]string{"x", "y"}) {
			having = append(having, p.name)
		}
	}
	infos, err := m.reg.Discover(registry.Query{Require: []string{"y", "x"}})
	require.NoError(rt, err)
	var found []string
	for _, info := range infos {
		found = append(found, info.Name)
	}
	require.ElementsMatch(rt, having, found)
}

// finish ends what is held and closes the registry.
func (m *machine) finish() {
	for _, l := range m.allHeld() {
		m.held[l].Done(nil)
	}
	_ = m.reg.Close(m.t.Context())
}

// play runs random steps on a registry and its oracle, in a bubble of its own.
func play(t *testing.T, rt *rapid.T, defect string) {
	t.Helper()
	var thrown any
	seed := rapid.IntRange(1, 5).Draw(rt, "seed")
	synctest.Test(t, func(t *testing.T) {
		reg, err := registry.New(registry.Options{DrainTimeout: 24 * 365 * time.Hour, Selection: selection.Policy{Seed: uint64(seed)}})
		require.NoError(t, err)
		m := &machine{
			t: t, reg: reg, oracle: newOracle(seed), began: time.Now(),
			handles: make(map[*provider]*registry.Registration), held: make(map[*lease]*registry.Lease[string]),
		}
		m.oracle.defect = defect
		defer m.finish()
		defer func() { thrown = recover() }() // rapid ends a case that fails by a panic
		rt.Repeat(map[string]func(*rapid.T){
			"": m.check, "register": m.Register, "unregister": m.Unregister, "mark": m.Mark, "force open": m.ForceOpen,
			"reset": m.Reset, "set": m.Set, "pass": m.Pass, "call": m.Call, "call again": m.Call, "get": m.Get, "many": m.Many,
			"acquire": m.Acquire, "acquire many": m.AcquireAll, "answered": m.Answered, "done": m.Done,
		})
	})
	switch {
	case thrown == nil:
	case fmt.Sprintf("%T", thrown) == "rapid.invalidData":
		throwInvalid(thrown)
	default:
		throwFailure(thrown)
	}
}

// rapid tells errors apart by the stacks that they come from, and shrinks a failure to
// whatever has the same one: cases that cannot be must come from elsewhere.
func throwInvalid(thrown any) { panic(thrown) }

func throwFailure(thrown any) { panic(thrown) }

func TestModel_RegistryMatchesNaiveOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) { play(t, rt, "") })
}

func FuzzModel_RegistryMatchesNaiveOne(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte("a registry is asked, changed and asked again"), 40))
	f.Fuzz(func(t *testing.T, input []byte) {
		rapid.MakeFuzz(func(rt *rapid.T) { play(t, rt, "") })(t, input)
		require.False(t, t.Failed())
	})
}
