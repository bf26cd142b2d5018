package registry

import (
	"slices"
	"time"

	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/queueing"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/slots"
	"github.com/capreg/registry/reason"
)

// places answers for providers whose places calls wait for.
type places struct{}

func (places) Admits(p *provider) bool     { return p.gateNow()&refusal.Blocked == 0 }
func (places) Superseded(p *provider) bool { return p.superseded() }

func (places) Places(p *provider) (at *slots.Slots, maxWait time.Duration) {
	l := p.limits.Load()
	if l == nil || l.Slots() == nil {
		return nil, 0
	}
	return l.Slots(), l.Policy().MaxWait
}

func (places) ReturnsIn(p *provider) (in time.Duration, cools bool) {
	in, _ = p.comesBackIn()
	return in, p.gateNow()&refusal.Blocked == refusal.Cooling
}

// callQueues has the positions of a call that queues, at once, for the places of all providers that had none free. It ends with the
// first place at which a provider admits the call, with another provider that the call can enter meanwhile, or
// when every queue was left. It does not refer to its call, which would then live on the heap.
type callQueues struct {
	queueing.Queues[*provider]

	began time.Duration // on the registry's clock
}

// awaitPlace queues at the providers that had no place free, and enters the one that is first to have one and
// still admits the call, or another one that can be entered meanwhile.
func (c *call) awaitPlace() bool {
	if len(c.full) == 0 {
		return false
	}
	defer c.skipFull()
	q := callQueues{queueing.New[*provider](places{}, c.options.Caller), c.query.service.registry.now()}
	defer q.End()
	defer func() { c.delay += c.since(q.began) }()
	patience := queueing.Patience{ForReturn: c.options.Wait, Bounded: c.caller.HasDeadline, Deadline: c.caller.Deadline}
	for {
		changed := c.query.service.registry.changed()
		c.noteFull(q.Follow(c.query.current().candidates, c.wantsSuccessor))
		if c.dropReplaced() && c.enterAnother() {
			return true
		}
		q.Join(c.full, c.wants)
		limit := q.LeaveHopeless(c.since(q.began), patience)
		if limit <= 0 {
			return false
		}
		at, woken := q.Await(c.caller.Ctx, limit, changed)
		switch {
		case at >= 0 && c.enterGranted(&q, at), woken && c.enterAnother():
			return true
		case c.caller.Err() != nil: // also of a call whose place has come too late
			return false
		case at >= 0:
			q.Resume(at)
		}
	}
}

// wantsSuccessor reports whether the call queues at the successor of a provider.
func (c *call) wantsSuccessor(p *provider) bool { return c.wants(p) && !slices.Contains(c.refused, p) }

// noteFull adds providers to those that had no place free.
func (c *call) noteFull(providers []*provider) {
	for _, p := range providers {
		if !slices.Contains(c.full, p) {
			c.full = append(c.full, p)
		}
	}
}

// dropReplaced forgets full providers that were replaced: their successors are in the current plan. It reports
// whether there were any.
func (c *call) dropReplaced() bool {
	before := len(c.full)
	c.full = slices.DeleteFunc(c.full, (*provider).superseded)
	return len(c.full) < before
}

// skipFull notes the providers that had no place free and were not entered.
func (c *call) skipFull() {
	for _, p := range c.full {
		c.skip(p, refusal.Full(), 0)
	}
	c.full = nil
}

func (c *call) since(began time.Duration) time.Duration {
	return c.query.service.registry.now() - began
}

// enterGranted enters the first provider of the queue that admits the call, whose place was given to it.
func (c *call) enterGranted(q *callQueues, at int) (entered bool) {
	c.noteFull(q.FollowOne(at, c.query.current().candidates, c.wantsSuccessor))
	place, p, ok := q.Granted(at, c.wants)
	c.attempt.place = place
	defer func() {
		if !entered {
			c.attempt.leavePlace() // deferred: an authoriser may exit the goroutine
		}
	}()
	if !ok || c.caller.Err() != nil {
		return false
	}
	if !c.claimAndEnter(p, admission{why: reason.Queued, placed: true}) {
		if !c.keepsTurn(p) {
			q.Refused(at, p)
		}
		return false
	}
	c.full = nil
	c.providers.take()
	return true
}

// keepsTurn reports whether a call goes on waiting for p, which did not admit it: it was blocked meanwhile, and
// did not turn this call away.
func (c *call) keepsTurn(p *provider) bool {
	return !slices.Contains(c.refused, p) && !c.shared.had(p) && p.instance.Load() != nil
}

// enterAnother enters a provider that has become eligible while the call waits in queues.
func (c *call) enterAnother() bool {
	others := c.query.iterate(admitting)
	others.rest.Mode = pick.Peek
	others.shared = c.shared
	others.restarts = maxRestarts // the wait looks again by itself
	for p := others.advance(&c.by); p != nil; p = others.advance(&c.by) {
		if c.triedBefore(p) || !c.wants(p) {
			continue
		}
		if c.claimAndEnter(p, admission{why: c.nextReason()}) {
			c.full = nil
			c.providers.take()
			return true
		}
	}
	return false
}
