package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

const (
	settleTime = 5 * time.Second // for forgotten leases to expire, and for states to follow
	settleStep = 20 * time.Millisecond
)

// rest lets everything come to rest and compares the counts of the registry with those of
// the backends, the callers and a subscriber.
func (w *world) rest(random *rand.Rand) {
	w.calm.Store(true)
	defer w.calm.Store(false)
	for _, m := range w.present() {
		m.account.ill.Store(int32(noSickness))
	}
	w.openPlaces()
	problems := w.untilNone(w.audit)
	for _, problem := range problems {
		w.ledger.broke("%s at rest: %s", w.name, problem)
	}
	w.closeBooks()
	for _, m := range w.present() {
		if !m.fixed {
			_, _ = m.SetLimits(drawLimits(random))
		}
	}
}

// untilNone repeats a check until it finds nothing. What is wrong at rest stays wrong; what
// is on its way does not.
func (w *world) untilNone(check func() []string) (problems []string) {
	for began := time.Now(); ; <-time.After(settleStep) {
		if problems = check(); len(problems) == 0 || time.Since(began) > settleTime {
			return problems
		}
	}
}

// openPlaces bounds every domain to one place for each of its members: those that are
// free must then be enough for one lease of each.
func (w *world) openPlaces() {
	present := w.present()
	members := make(map[string]int)
	for _, m := range present {
		members[m.Definition().Domain]++
	}
	for _, m := range present {
		places := 1
		if domain := m.Definition().Domain; domain != "" {
			places = members[domain]
		}
		if !m.fixed {
			_, _ = m.SetLimits(registry.LimitPolicy{MaxConcurrent: places, NoQueue: true})
		}
	}
}

// audit returns the faults of a registry at rest.
func (w *world) audit() (problems []string) {
	report := func(format string, values ...any) { problems = append(problems, fmt.Sprintf(format, values...)) }
	gates := w.gates()
	stats := w.reg.Stats()
	eligible := 0
	for info := range w.reg.All() {
		if info.Eligible {
			eligible++
		}
		if !info.Eligible && info.Reason == "" {
			report("%s is not eligible for no reason", info.Name)
		}
		if gate, ok := gates[info.Generation]; ok && gate != info.Breaker.State {
			report("the breaker of %s is %v and its gate %v", info.Name, info.Breaker.State, gate)
		}
		switch past, known, whole := w.history.of(info.Generation); {
		case !whole:
		case !known:
			report("%s is there, and no event has said so", info.Name)
		case past.breaker != info.Breaker.State.String():
			report("the breaker of %s is %v, and by its events %s", info.Name, info.Breaker.State, past.breaker)
		case past.health != "" && past.health != info.Health.State.String():
			report("the health of %s is %v, and by its events %s", info.Name, info.Health.State, past.health)
		}
	}
	if stats.Eligible != eligible {
		report("%d providers are eligible by the totals, %d one by one", stats.Eligible, eligible)
	}
	present, draining := w.history.counts()
	if present != stats.Providers || draining != 0 {
		report("%d providers, by the events %d, and %d of those that left have not drained", stats.Providers, present, draining)
	}
	if asked := w.lookups.Load(); stats.Hits+stats.Misses != asked {
		report("%d look-ups, but %d hits and %d misses", asked, stats.Hits, stats.Misses)
	}
	if before, after := w.before.Load(), w.after.Load(); before != after {
		report("%d calls began before a hook and %d ended before one", before, after)
	}
	problems = append(problems, checkOverall(w.reg.Health())...)
	for _, r := range w.resolvers {
		problems = append(problems, w.auditPicking(r)...)
	}
	w.mu.Lock()
	members := slices.Clone(w.members)
	w.mu.Unlock()
	for _, m := range members {
		problems = append(problems, m.audit()...)
	}
	return problems
}

// gates returns the states of the breakers as picking sees them.
func (w *world) gates() map[uint64]status.BreakerState {
	events := w.reg.Subscribe(1)
	defer events.Close()
	gates := make(map[uint64]status.BreakerState)
	for _, info := range events.Snapshot() {
		gates[info.Generation] = info.Breaker.State
	}
	return gates
}

// audit compares the two books on one provider.
func (m *member) audit() (problems []string) {
	report := func(format string, values ...any) {
		problems = append(problems, m.Name()+": "+fmt.Sprintf(format, values...))
	}
	info := m.Info()
	if sum := info.Successes + info.Failures + info.Ignored + info.Limited; info.InFlight != 0 || info.Attempts != sum {
		report("%d attempts, %d outcomes, %d in flight", info.Attempts, sum, info.InFlight)
	}
	if entered := m.account.entered.Load(); entered != info.Attempts {
		report("was entered %d times, and %d attempts are counted", entered, info.Attempts)
	}
	if sure := m.account.sure.Load(); sure > info.Successes {
		report("answered %d times, and %d successes are counted", sure, info.Successes)
	}
	if crashed := m.account.crashed.Load(); crashed > info.Failures {
		report("panicked or exited %d times, and %d failures are counted", crashed, info.Failures)
	}
	if info.Breaker.TrialsInFlight != 0 {
		report("%d trials are in flight", info.Breaker.TrialsInFlight)
	}
	if held := m.account.held.Load(); held != 0 {
		report("%d iterators or bodies are open", held)
	}
	return problems
}

// auditPicking compares the reported eligibility with the picks.
func (w *world) auditPicking(r *registry.Resolver[*backend]) (problems []string) {
	report := func(format string, values ...any) { problems = append(problems, fmt.Sprintf(format, values...)) }
	var callable, steady, leased []string
	e := r.Explain()
	for _, c := range e.Candidates {
		if c.Eligible {
			callable = append(callable, c.Provider)
		}
		if c.Code == reason.Eligible {
			steady = append(steady, c.Provider)
		}
		if c.Eligible == (c.Err != nil) {
			report("%s is eligible: %v, because %v", c.Provider, c.Eligible, c.Err)
		}
		if open := errors.Is(c.Err, registry.ErrBreakerOpen); open != (c.Breaker == status.BreakerOpen) && c.Code != reason.CapabilityMissing {
			report("the breaker of %s is %v, and keeps calls away: %v", c.Provider, c.Breaker, open)
		}
	}
	w.lookups.Add(2)
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	leases, _ := r.AcquireAll(ctx, 0)
	for _, lease := range leases {
		lease.Value.account.entered.Add(1)
		leased = append(leased, lease.Provider())
		lease.Done(verdict.Ignore(errIll))
	}
	if !slices.Equal(callable, leased) {
		report("%v: eligible are %v, leased %v", e.Query, callable, leased)
	}
	var gotten []string
	instances, _ := r.GetAll(ctx, 0)
	for _, b := range instances {
		gotten = append(gotten, b.account.name)
	}
	if !slices.Equal(steady, gotten) {
		report("%v: steady are %v, given %v", e.Query, steady, gotten)
	}
	seen := slices.ContainsFunc(e.Candidates, func(c registry.Candidate) bool { return c.Provider == e.Winner })
	resort := len(callable) == 0 && seen && w.lastResort(e.Winner)
	if !resort && ((e.Winner == "") != (len(callable) == 0) || e.Winner != "" && !slices.Contains(callable, e.Winner)) {
		report("%v: the winner is %q of %v", e.Query, e.Winner, callable)
	}
	return problems
}

// lastResort reports whether a provider may be tried although it is not eligible.
func (w *world) lastResort(name string) bool {
	p, ok := w.reg.Provider(backends.Name(), name)
	return ok && p.Info().LastResort
}

// checkOverall compares the counts of the whole with its details.
func checkOverall(o health.Overall) (problems []string) {
	counts := make(map[health.State]int)
	for _, s := range o.Services {
		counts[s.State]++
	}
	if counts[health.Healthy] != o.Healthy || counts[health.Degraded] != o.Degraded || counts[health.Unhealthy] != o.Unhealthy {
		problems = append(problems, fmt.Sprintf("the health of the whole counts %d, %d and %d of %v", o.Healthy, o.Degraded, o.Unhealthy, counts))
	}
	return problems
}

// closeBooks forgets the members that have left and are at rest, and counts as lost what
// the two books disagree on.
func (w *world) closeBooks() {
	present := make(map[*member]bool)
	for _, m := range w.present() {
		present[m] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members = slices.DeleteFunc(w.members, func(m *member) bool {
		if entered, attempts := m.account.entered.Load(), m.Info().Attempts; entered != attempts {
			w.ledger.lose(max(entered, attempts) - min(entered, attempts))
			return true // so that they are not lost again
		}
		return !present[m]
	})
}

// close closes the registry while calls go on, from two goroutines.
func (w *world) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	errs := make(chan error, 2)
	for range cap(errs) {
		go func() { errs <- w.reg.Close(ctx) }()
	}
	defer w.closed.Store(true)
	for range cap(errs) {
		if err := <-errs; err != nil {
			w.ledger.broke("%s: Close: %v", w.name, err)
		}
	}
}

// afterwards checks a closed registry after the end of its calls.
func (w *world) afterwards() (leaked uint64) {
	w.reading.Wait()
	problems := w.untilNone(func() (problems []string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, m := range w.members {
			problems = append(problems, m.audit()...)
			if made, closed := m.account.made.Load(), m.account.closed.Load(); made != closed {
				problems = append(problems, fmt.Sprintf("%s: %d instances made, %d closed", m.Name(), made, closed))
			}
		}
		return problems
	})
	for _, problem := range problems {
		w.ledger.broke("%s after Close: %s", w.name, problem)
	}
	if present, draining := w.history.counts(); present+draining > 0 {
		w.ledger.broke("%s: %d providers are there after Close, %d are draining", w.name, present, draining)
	}
	if stats := w.reg.Stats(); stats.Hits+stats.Misses != w.lookups.Load() {
		w.ledger.broke("%s: %d look-ups, %d hits and %d misses", w.name, w.lookups.Load(), stats.Hits, stats.Misses)
	}
	if _, err := w.resolvers[0].Get(context.Background()); !errors.Is(err, registry.ErrClosed) {
		w.ledger.broke("%s: Get after Close: %v", w.name, err)
	}
	w.closeBooks()
	return w.uncollected()
}
