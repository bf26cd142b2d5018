package registry

import (
	"context"
	"slices"
	"sync"

	"github.com/capreg/registry/internal/claim"
	"github.com/capreg/registry/internal/outcome"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/verdict"
)

// leaseCall is a call whose attempts are leases: those that come from one another by
// [Lease.MoveOn] and [Lease.Beside].
type leaseCall struct {
	// first is the call as it began. Each search for a provider works on a copy: it may take
	// time, and others may search meanwhile.
	first call

	// mu guards the fields below; nothing is called while it is held.
	mu       sync.Mutex
	history  history
	claims   claim.Set[*provider]
	open     int   // leases, and searches, in progress; zero again: the call is over
	answered bool  // one of them was a success
	failure  error // of the last search that found no provider
}

func newLeaseCall(ctx context.Context, query *queryPlan, key string, options []CallOption) (*leaseCall, error) {
	c := &leaseCall{open: 1}
	c.first.shared = c
	if err := c.first.begin(ctx, query, key, options, nil); err != nil {
		return nil, err
	}
	return c, nil
}

// openSearch notes a search in progress; false when the call is over.
func (c *leaseCall) openSearch() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == 0 {
		return false
	}
	c.open++
	return true
}

// close notes the end of a lease or a search. The last one makes the report.
func (c *leaseCall) close() {
	c.mu.Lock()
	c.open--
	over := c.open == 0
	c.mu.Unlock()
	if !over || !c.first.observed {
		return
	}
	c.first.history, c.first.entries = c.history, len(c.history.attempts) // nothing searches any more
	failure := c.failure
	switch {
	case c.answered:
		failure = nil
	case failure == nil:
		failure = c.first.failure()
	}
	c.first.report(failure)
}

// addLease notes that the provider of the attempt is leased.
func (c *leaseCall) addLease(a *attempt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open++
	c.claims.Enter(a.provider)
	if c.first.attempt.ctx == nil {
		c.first.attempt.ctx = a.ctx // it has the key of the call
	}
}

// search returns a copy of the call that goes on to the next provider. The rotations of tiers
// that the call has entered do not move again.
func (c *leaseCall) search() call {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.first
	s.history = c.history.clone()
	s.entries, s.sawProbes, s.skips, s.refused, s.full = 1, true, nil, nil, nil
	s.iterate()
	s.providers.rest.Mode = c.modeLocked(s.providers.plan)
	s.providers.take()
	return s
}

// failed notes the error of a search that found no provider.
func (c *leaseCall) failed(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failure = err
	return err
}

// serial returns the number of the call, the same for all of its leases.
func (c *leaseCall) serial() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first.serial()
}

// note notes an attempt that has ended, and returns the report so far where hooks want it.
func (c *leaseCall) note(ended Attempt, cause error, window int) (soFar CallReport) {
	first := &c.first
	c.mu.Lock()
	defer c.mu.Unlock()
	succeeded := outcome.IsSuccess(ended.Class)
	c.answered = c.answered || succeeded
	if !succeeded || first.observed {
		c.history.add(ended, cause)
	}
	if !succeeded && ended.Class.Rule().Blame == verdict.BlameSuccess {
		// It was about the request, so it holds for all leases of the call.
		c.history.Follow(ended.Class, first.options.onceOnly, first.query.query.TryRefused, window)
	}
	if first.observed {
		soFar = first.soFar(c.history.attempts)
	}
	return soFar
}

// claim takes a provider for a search, unless another lease of the call has or had it; with
// again only one that has it is in the way.
func (c *leaseCall) claim(p *provider, again bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if again {
		return c.claims.Reclaim(p)
	}
	return c.claims.Claim(p)
}

// unclaim gives a provider back that was not entered, or whose lease is over.
func (c *leaseCall) unclaim(p *provider) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.claims.Release(p)
}

// claimed reports whether a provider of the name was entered by the call, or is about to be.
func (c *leaseCall) claimed(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.claims.All() {
		if p.name() == name {
			return true
		}
	}
	return false
}

// had reports whether p was entered by the call, or is about to be.
func (c *leaseCall) had(p *provider) bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.claims.Has(p)
}

// mode is modeLocked without mu.
func (c *leaseCall) mode(p *plan) pick.Mode {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.modeLocked(p)
}

// modeLocked returns the mode of an iteration that takes turns in the tiers behind those that the call has
// entered. Caller holds mu.
func (c *leaseCall) modeLocked(p *plan) pick.Mode {
	for at, candidate := range slices.Backward(p.candidates) {
		if c.claims.Entered(candidate) {
			return pick.PeekUntil(p.TierOf(at) + 1)
		}
	}
	return pick.Peek
}
