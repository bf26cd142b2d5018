package registry

import (
	"context"
	"time"

	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/striped"
)

// Resolver gives out providers of one service for one query. It is made by
// [Service.Bind], is meant to be kept, and is safe for concurrent use.
type Resolver[T any] struct {
	slot    *queryPlan
	service string
	query   *Query // nil for a look-up in passing
	key     string // of the query
	err     error  // what was wrong with the binding
}

// Service returns the name of the service.
func (r *Resolver[T]) Service() string {
	if r == nil {
		return ""
	}
	return r.service
}

// bound returns the slot, or what was wrong with the binding.
func (r *Resolver[T]) bound() (*queryPlan, error) {
	if r == nil || r.slot == nil && r.err == nil {
		return nil, invalid("Resolver", verbatim("nil"), "a resolver made by Bind")
	}
	return r.slot, r.err
}

// Get returns the instance of the best provider now, for wiring: it looks only
// at providers that are ready, healthy and have a closed breaker, and records
// nothing but the look-up, so a failure of what the caller does with the
// instance reaches no breaker. Use [Call] or [Resolver.Acquire] for that.
//
// It blocks only for a factory that has not run yet, within ctx and the
// provider's attempt timeout, and for a first probe that has no result yet where
// there is nobody else. The error is an [UnavailableError].
func (r *Resolver[T]) Get(ctx context.Context) (T, error) {
	if r != nil && r.slot != nil {
		if plan := r.slot.plan.Load(); plan != nil {
			at := plan.Healthy.First()
			if !plan.InOrder {
				at = plan.First(plan.Healthy, true)
			}
			if at >= 0 {
				if made := plan.candidates[at].instance.Load(); made != nil {
					r.slot.service.lookups.At(striped.Here()).hits.Add(1)
					return held[T](made), nil
				}
				if ctx != nil {
					return r.find(ctx, plan.iterateFrom(plan.Healthy, at))
				}
			}
		}
	}
	slot, err := r.bound()
	if err == nil && ctx == nil {
		err = invalid("ctx", verbatim("nil"), "a context")
	}
	if err != nil {
		var none T
		return none, err
	}
	plan := slot.current()
	return r.find(ctx, plan.iterate(plan.Healthy))
}

// find is Get where a factory has to run, or nobody is eligible.
func (r *Resolver[T]) find(ctx context.Context, w iterator) (none T, err error) {
	lookups, by := &r.slot.service.lookups, pick.Caller{Context: ctx, Key: r.key}
	waited, anew, met := false, 0, false
	for {
		overtaken := false
		for p := w.next(&by); p != nil && ctx.Err() == nil; p = w.next(&by) {
			made := p.obtain(ctx, &w)
			if overtaken = p.displaced() && anew < walksAnew; overtaken {
				break
			}
			if made != nil {
				lookups.Local().hits.Add(1)
				return held[T](made), nil
			}
			met = met || p.gateNow() == 0
		}
		switch {
		case ctx.Err() != nil:
			return none, r.missed(ctx)
		case overtaken:
			anew++
		case !met && anew < walksAnew && r.slot.someone(true):
			anew++
		case !waited && r.slot.awaitHealth(ctx, true):
			waited = true
		default:
			return none, r.missed(ctx)
		}
		plan := r.slot.current()
		w = plan.iterate(plan.Healthy)
	}
}

// walksAnew bounds how often somebody is looked for again who was there behind a walk
// that met nobody.
const walksAnew = 16

// someone reports whether anybody is eligible at this moment. A walk may meet nobody
// although somebody always was: who came, or came back, behind it.
func (s *queryPlan) someone(steady bool) bool {
	plan := s.current()
	eligible := plan.Admitting
	if steady {
		eligible = plan.Healthy
	}
	if len(plan.candidates) <= bitset.OneWord && eligible.First() < 0 && s.plan.Load() == plan {
		return false // one word is one moment, at which the plan was in force
	}
	s.service.registry.mu.Lock()
	defer s.service.registry.mu.Unlock()
	if s.attached && s.plan.Load() != plan {
		return true // perhaps: membership has changed again
	}
	return plan.AnyEligible(eligible)
}

// missed counts a look-up that found nobody, and says why.
func (r *Resolver[T]) missed(ctx context.Context) error {
	svc := r.slot.service
	svc.lookups.Local().misses.Add(1)
	unavailable := r.slot.unavailable(true, pick.Caller{Context: ctx, Key: r.key})
	if ctx.Err() != nil {
		svc.tally.miss(nil)
		return fault.Join("registry: ", append(fault.OfContext(ctx), unavailable))
	}
	svc.tally.miss(unavailable)
	return unavailable
}

// obtain returns the provider's instance, waiting for its factory within ctx
// and the attempt timeout; nil when there is none to be had.
func (p *provider) obtain(ctx context.Context, w *iterator) *instance {
	if made := p.instance.Load(); made != nil {
		return made
	}
	a := attempt{provider: p, timeout: time.Duration(p.timeout.Load())}
	a.begin(ctx)
	a.awaitInstance(w) //nolint:contextcheck // the attempt has it
	return a.instance
}

// Many returns the instances of all providers that Get would give, in order, at
// most limit of them; zero or less means all. Rotations do not move. The error
// is an [UnavailableError]: there is at least one instance, or an error.
func (r *Resolver[T]) Many(ctx context.Context, limit int) ([]T, error) {
	slot, err := r.bound()
	if err == nil && ctx == nil {
		err = invalid("ctx", verbatim("nil"), "a context")
	}
	if err != nil {
		return nil, err
	}
	slot.awaitHealth(ctx, true)
	var found []T
	for anew := 0; anew <= walksAnew; anew++ {
		all, met, overtaken := manyOf[T](ctx, slot.current(), limit, anew == walksAnew)
		if found = all; ctx.Err() != nil || !overtaken && (len(found) > 0 || met || !slot.someone(true)) {
			break
		}
	}
	if len(found) == 0 {
		return nil, r.missed(ctx)
	}
	r.slot.service.lookups.Local().hits.Add(1)
	return found, nil
}

// manyOf returns the instances of those in the plan who are eligible, and whether it met
// such a one at all. It breaks off where one was displaced meanwhile, but for the last time.
func manyOf[T any](ctx context.Context, plan *plan, limit int, last bool) (found []T, met, overtaken bool) {
	for at := plan.Healthy.Next(0, len(plan.candidates)); at >= 0; at = plan.Healthy.Next(at+1, len(plan.candidates)) {
		if !plan.FastEnough(at) {
			continue
		}
		p := plan.candidates[at]
		made := p.obtain(ctx, nil)
		if p.displaced() && !last {
			return found, met, true
		}
		if made != nil {
			found = append(found, held[T](made))
		}
		met = met || p.gateNow() == 0
		if len(found) == limit && limit > 0 || ctx.Err() != nil {
			break
		}
	}
	return found, met, false
}
