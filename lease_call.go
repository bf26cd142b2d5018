package registry

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/claim"
	"github.com/capreg/registry/internal/hook"
	"github.com/capreg/registry/internal/outcome"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/internal/typed"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

// leaseCall holds the common state of the leases of one call: those that come from one another by [Lease.MoveOn] and
// [LeaseSteps.Beside]. Each provider is found by a search, which is a [call] of its own with the request and the history of
// this one: it may take time, and others may search meanwhile.
type leaseCall struct {
	request

	// mu guards the fields below and the number of the request; nothing is called while it is held.
	mu       sync.Mutex
	history  history
	skips    []sight.Seen // of all searches
	claims   claim.Set[*provider]
	key      *attemptctx.Context // of its first attempt: all have the idempotency key of the call
	room     attemptctx.Context  // for that
	failure  error               // of the last search that found no provider
	open     int32               // leases, and searches, in progress; zero again: the call is over
	leased   int32               // how many leases there were
	answered bool                // one of the leases was a success
	class    verdict.Class       // of the call as far as it is known
}

// firstSearch makes c the search for the first provider, which begins where an attempt was not admitted. It is the one
// thing of the call that is open.
func (s *leaseCall) firstSearch(c *call, after *firstAttempt) {
	s.open = 1
	if s.began == 0 {
		s.began = s.query.service.registry.now()
	}
	c.request, c.shared, c.room = s.request, s, &s.room
	c.iterateWith(after)
}

// firstLease is the first lease of a call and the call: most calls have no other one.
type firstLease[T any] struct {
	call  leaseCall
	lease Lease[T]
}

// search finds the provider where the first attempt was not admitted. It is a function of its own so that a lease that
// is given at once does not pay for the state of a search.
func (l *firstLease[T]) search(after *firstAttempt) (*Lease[T], error) {
	var c call
	l.call.firstSearch(&c, after)
	defer l.call.close()
	return nextLease(&c, &l.lease)
}

// nextLease makes l the lease of the next provider of a search.
func nextLease[T any](c *call, l *Lease[T]) (*Lease[T], error) {
	if !c.nextAttempt() {
		return nil, c.shared.endSearch(c)
	}
	return newLease(c, l), nil
}

// newLease makes l the lease of the provider that the search has entered.
func newLease[T any](c *call, l *Lease[T]) *Lease[T] {
	if c.observed {
		c.prepareLease()
	}
	l.Value = typed.Value[T](c.attempt.instance)
	l.held.init(c)
	return l
}

// acquireEach leases every provider that a call could enter, one after the other, as long as use returns true. There
// is at least one lease, or an error.
func (r *Resolver[T]) acquireEach(ctx context.Context, options []CallOption, use func(*Lease[T]) bool) error {
	query, err := r.bound()
	if err != nil {
		return err
	}
	var c call
	shared := &leaseCall{}
	if err := shared.accept(ctx, query, r.key, options, new(hook.Asked[CallReport, Attempt])); err != nil {
		return err
	}
	shared.firstSearch(&c, nil)
	defer shared.close()
	query.awaitFirstProbe(c.caller.Ctx, admitting) //nolint:contextcheck // the call has it
	c.providers = query.list(admitting)
	leased := false
	for more := true; more && c.caller.Ctx.Err() == nil; {
		p := c.providers.advance(nil)
		if p == nil {
			break
		}
		switch {
		case c.providers.restarts > 0 && c.triedBefore(p): // offered again by the current plan
		case c.claimAndEnter(p, admission{why: reason.All, paid: true, uncounted: true}): //nolint:contextcheck // the call has it
			c.providers.take()
			leased = true
			more = use(newLease(&c, &Lease[T]{}))
		default:
			c.providers.pass(p)
		}
	}
	if !leased {
		query.service.meter.Miss()
		c.skipFull()
		return shared.endSearch(&c)
	}
	query.service.meter.Hit()
	return nil
}

// closeAnswered is the end, now, of the lease of p in a call that nothing observes.
func (s *leaseCall) closeAnswered(p *provider, now time.Duration) {
	s.mu.Lock()
	s.claims.Release(p)
	s.answered, s.class = true, verdict.ClassSuccess
	s.open--
	over, leased := s.open == 0, s.leased
	s.mu.Unlock()
	if over {
		p.service.meter.Called(verdict.ClassSuccess, now-s.began, int(leased))
	}
}

// nextSearch returns a search for another provider. The rotations of tiers that the call has entered do not move again.
func (s *leaseCall) nextSearch() call {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := call{request: s.request, shared: s, history: s.history.clone(), by: s.pickCaller(), entries: 1, sawProbes: true}
	c.attempt.ctx = s.key
	c.iterate()
	c.providers.rest.Mode = s.modeLocked(c.providers.plan)
	c.providers.take()
	return c
}

// openSearch notes a search in progress; false when the call is over.
func (s *leaseCall) openSearch() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == 0 {
		return false
	}
	s.open++
	return true
}

// endSearch ends a search that found no provider, and returns its error.
func (s *leaseCall) endSearch(c *call) error {
	err, class := c.failure(), c.endClass()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skips = append(s.skips, c.skips...)
	if s.failure = err; !s.answered {
		s.class = class
	}
	return err
}

// addLease notes the lease of the provider that a search has entered.
func (s *leaseCall) addLease(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	s.leased++
	s.skips = append(s.skips, c.skips...)
	s.claims.Enter(c.attempt.provider)
	if s.key == nil {
		s.key = c.attempt.ctx
	}
}

// addOutcome notes an attempt on p that has ended, gives p back, and returns the report so far where hooks want it.
func (s *leaseCall) addOutcome(p *provider, ended Attempt, cause error) (soFar CallReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims.Release(p)
	succeeded := outcome.IsSuccess(ended.Class)
	s.answered = s.answered || succeeded
	if succeeded || !s.answered {
		s.class = ended.Class
	}
	if !succeeded || s.observed {
		s.history.add(ended, cause)
	}
	if !succeeded && ended.Class.Rule().Blame == verdict.BlameSuccess {
		// It was about the request, so it holds for all leases of the call.
		s.history.allowed.Follow(ended.Class, s.options.OnceOnly, s.query.query.TryRefused, p.definition.Window)
	}
	if s.observed {
		soFar = s.soFar(s.history.attempts)
	}
	return soFar
}

// close notes the end of a lease or a search. The last one makes the report.
func (s *leaseCall) close() {
	s.mu.Lock()
	s.open--
	over := s.open == 0
	s.mu.Unlock()
	if !over {
		return
	}
	// Nothing searches any more.
	whole := call{request: s.request, shared: s, history: s.history, by: s.pickCaller(), skips: s.skips, entries: int(s.leased)}
	whole.count(s.class, s.query.service.registry.now())
	if !s.observed {
		return
	}
	failure := s.failure
	switch {
	case s.answered:
		failure = nil
	case failure == nil:
		failure = whole.failure()
	}
	whole.report(failure)
}

// serial returns the number of the call, the same for all of its leases.
func (s *leaseCall) serial() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.request.serial()
}

// claim takes a provider for a search, unless another lease of the call has or had it; with
// again only one that has it is in the way.
func (s *leaseCall) claim(p *provider, again bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if again {
		return s.claims.Reclaim(p)
	}
	return s.claims.Claim(p)
}

// unclaim gives a provider back that was not entered.
func (s *leaseCall) unclaim(p *provider) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims.Release(p)
}

// claimed reports whether a provider of the name was entered by the call, or is about to be.
func (s *leaseCall) claimed(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.claims.All() {
		if p.name() == name {
			return true
		}
	}
	return false
}

// had reports whether p was entered by the call, or is about to be.
func (s *leaseCall) had(p *provider) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claims.Has(p)
}

// mode is modeLocked without mu.
func (s *leaseCall) mode(p *plan) pick.Mode {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.modeLocked(p)
}

// modeLocked returns the mode of an iteration that takes turns in the tiers behind those that the call has
// entered. Caller holds mu.
func (s *leaseCall) modeLocked(p *plan) pick.Mode {
	for at, candidate := range slices.Backward(p.candidates) {
		if s.claims.Entered(candidate) {
			return pick.PeekUntil(p.TierOf(at) + 1)
		}
	}
	return pick.Peek
}
