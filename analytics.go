package registry

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/ring"
	"github.com/capreg/registry/selection"
)

// mostDecisions bounds the memory of decisions.
const mostDecisions = 1 << 20

// checkSelection checks the options that concern selection and returns the
// strategies by name.
func checkSelection(options *Options) (map[string]Strategy, error) {
	if err := checkPolicy("Options.Selection", options.Selection); err != nil {
		return nil, err
	}
	if options.Decisions < 0 || options.Decisions > mostDecisions {
		return nil, invalid("Options.Decisions", options.Decisions, fmt.Sprintf("0 (none) to %d", mostDecisions))
	}
	strategies := make(map[string]Strategy)
	for i, s := range options.Strategies {
		field := fmt.Sprintf("Options.Strategies[%d]", i)
		if err := s.Check(); err != nil || s.IsZero() || s.Named() {
			return nil, invalid(field, s.String(), "a strategy with a selector and a printable name")
		}
		if _, twice := strategies[s.String()]; twice {
			return nil, invalid(field, s.String(), "a name that no strategy before it has")
		}
		strategies[s.String()] = s
	}
	return strategies, nil
}

func checkPolicy(name string, policy selection.Policy) error {
	if field, value, bound := policy.Check(); field != "" {
		return invalid(name+"."+field, value, bound)
	}
	return nil
}

// namedStrategy returns the strategy that a name stands for, where it is known.
func (r *Registry) namedStrategy(s Strategy) Strategy {
	if known, ok := r.strategies[s.String()]; ok && s.Named() {
		return known
	}
	return s
}

// knownStrategy refuses what is no more than a name.
func (r *Registry) knownStrategy(s Strategy) error {
	if !s.Named() {
		return nil
	}
	known := append([]string{StrategyFallback.String(), StrategyRoundRobin.String()}, slices.Sorted(maps.Keys(r.strategies))...)
	return invalid("Strategy", s.String(), "one of "+strings.Join(known, ", ")+" (see Options.Strategies)")
}

// SetSelection changes how the groups of the service are treated in that registry, and
// what is measured of its providers, from now on; it returns the previous policy. What
// was measured is kept. A bad policy is a [FieldError] that names the field.
func (s Service[T]) SetSelection(r *Registry, policy selection.Policy) (previous selection.Policy, err error) {
	if !r.made() {
		return previous, errNotMade()
	}
	if err := checkServiceName(s.name); err != nil {
		return previous, err
	}
	if err := checkPolicy("Selection", policy); err != nil {
		return previous, err
	}
	svc, err := r.bindService(s.name, bindingOf[T]())
	if err != nil {
		return previous, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return previous, fmt.Errorf("registry: %w", ErrClosed)
	}
	previous, svc.policy = svc.policy, policy
	for p := range svc.members {
		if known := p.vitals.Load(); known != nil {
			known.SetDecay(policy.Decay)
		}
	}
	svc.outdate()
	r.bus.publish(event.Event{
		Kind: event.Changed, Service: svc.name, Reason: "selection",
		From: fmt.Sprintf("%+v", previous), To: fmt.Sprintf("%+v", policy),
	})
	return previous, nil
}

// mayEject reports whether the breaker of the provider may open because of failures,
// and keeps calls away in the same step when it may: nobody else can use up the room
// meanwhile. The breaker's lock is held.
func (p *provider) mayEject() bool {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	policy := p.service.policy
	if policy.MaxEjected == 0 || p.hasLeft() {
		return true
	}
	out, members := 0, 0
	for other := range p.service.members {
		if other.group != p.group || other.mock() != p.mock() {
			continue
		}
		members++
		if other != p && other.gateNow()&(gateOpen|gateHalfOpen) != 0 {
			out++
		}
	}
	if !policy.MayEject(out, members) {
		p.held.Add(1)
		return false
	}
	p.opening = newOpening(ErrBreakerOpen.Error(), time.Time{}) // until the breaker itself is open
	p.shiftLocked(0, gateOpen, nil)
	return true
}

// tally counts why look-ups of a service found nobody.
type tally struct {
	// mu guards misses. Nothing is called while it is held.
	mu     sync.Mutex
	misses []misses // of few codes: a map would take longer
}

// misses is how many look-ups found nobody for one reason.
type misses struct {
	code  string
	count uint64
}

// Codes of misses that concern no candidate.
const (
	missEnded   = "context_ended"
	missUnknown = "unknown_service"
	missNobody  = "nobody_in_sight"
	missClosed  = "closed"
)

// miss counts a look-up that found nobody, once for each code among its candidates;
// nil: its context had ended.
func (t *tally) miss(why *UnavailableError) {
	var room [8]string
	codes := room[:0]
	switch {
	case why == nil:
		codes = append(codes, missEnded)
	case why.cause == ErrClosed: //nolint:errorlint // the sentinel itself
		codes = append(codes, missClosed)
	case why.cause == ErrUnknownService: //nolint:errorlint // the sentinel itself
		codes = append(codes, missUnknown)
	case len(why.Candidates) == 0:
		codes = append(codes, missNobody)
	}
	if why != nil {
		for i := range why.Candidates { // without a copy of each
			if code := why.Candidates[i].Code; !slices.Contains(codes, code) {
				codes = append(codes, code)
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, code := range codes {
		at := slices.IndexFunc(t.misses, func(m misses) bool { return m.code == code })
		if at < 0 {
			at = len(t.misses)
			t.misses = append(t.misses, misses{code: code})
		}
		t.misses[at].count++
	}
}

// byReason returns the counts, nil when there is none.
func (t *tally) byReason() (counts map[string]uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.misses {
		if counts == nil {
			counts = make(map[string]uint64, len(t.misses))
		}
		counts[m.code] = m.count
	}
	return counts
}

// Selection returns what became of the look-ups and attempts of a service so far, and
// false for a service that is not known. Reading it changes nothing.
func (r *Registry) Selection(serviceName string) (selection.Analytics, bool) {
	svc := r.knownService(serviceName)
	if svc == nil {
		return selection.Analytics{}, false
	}
	a := selection.Analytics{Service: serviceName}
	for cell := range svc.lookups.Each {
		a.Hits += cell.hits.Load()
		a.Misses += cell.misses.Load()
	}
	a.Lookups, a.MissesByReason = a.Hits+a.Misses, svc.tally.byReason()

	r.mu.Lock()
	defer r.mu.Unlock()
	members := slices.Collect(maps.Keys(svc.members))
	sortListing(members)
	seen := make(map[*group]bool) // the mocks of a group come behind the real ones of all
	for _, p := range members {
		a.Providers = append(a.Providers, selection.Share{
			Provider: p.name(), Handler: p.definition.Handler, Group: p.group.key.number, Weight: cmp.Or(p.definition.Weight, 1),
			Attempts: p.totals().Attempts, TookOver: p.tookOver.Load(), HeldClosed: p.held.Load(),
		})
		a.Attempts += a.Providers[len(a.Providers)-1].Attempts
		a.Failovers += p.tookOver.Load()
		if g := p.group; !seen[g] {
			seen[g] = true
			a.Groups = append(a.Groups, selection.GroupFaults{
				Handler: g.key.handler, Group: g.key.number, Strategy: g.strategy,
				Panics: g.faults.Count(pick.Panicked), Exits: g.faults.Count(pick.Exited),
				OutOfRange: g.faults.Count(pick.OutOfRange), Slow: g.faults.Count(pick.Slow),
			})
		}
	}
	for i := range a.Providers {
		if a.Attempts > 0 {
			a.Providers[i].Share = float64(a.Providers[i].Attempts) / float64(a.Attempts)
		}
	}
	return a, true
}

// decisions are the latest picks.
type decisions struct {
	// mu guards kept. Nothing is called while it is held.
	mu   sync.Mutex
	kept *ring.Ring[selection.Decision]
}

func newDecisions(limit int) *decisions {
	if limit == 0 {
		return nil
	}
	return &decisions{kept: ring.New[selection.Decision](limit)}
}

// add keeps a pick.
func (d *decisions) add(made selection.Decision) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept.Push(made)
}

// Decisions returns the latest picks, oldest first, at most [Options.Decisions]: of
// look-ups and of every attempt of a call that a strategy was asked about. What was not
// picked from (Many, AcquireMany, a retry, a last resort) is no decision.
func (r *Registry) Decisions() []selection.Decision {
	if r.decisions == nil {
		return nil
	}
	r.decisions.mu.Lock()
	defer r.decisions.mu.Unlock()
	return r.decisions.kept.Values()
}
