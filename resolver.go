package registry

import (
	"context"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/typed"
	"github.com/capreg/registry/reason"
)

// Resolver gives out providers of one service for one query. Use [Service.Bind] to create
// one, and keep it. It is safe for concurrent use.
type Resolver[T any] struct {
	plan    *queryPlan
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

// bound returns the plan of the query, or what was wrong with the binding.
func (r *Resolver[T]) bound() (*queryPlan, error) {
	if r == nil || r.plan == nil && r.err == nil {
		return nil, invalid("Resolver", raw("nil"), "a resolver made by Bind")
	}
	return r.plan, r.err
}

// boundFor is bound where a context is needed, too.
func (r *Resolver[T]) boundFor(ctx context.Context) (*queryPlan, error) {
	query, err := r.bound()
	if err == nil && ctx == nil {
		err = errNilContext()
	}
	return query, err
}

// Get returns the instance of the best provider now, for wiring: it looks only at providers that are ready, healthy
// and have a closed breaker, and records nothing but the look-up, so a failure of what the caller does with the
// instance reaches no breaker. Use [Call] or [Resolver.Acquire] for that.
//
// It blocks only for a factory that has not run yet, within ctx and the provider's attempt timeout, and for a first
// probe that has no result yet where no other provider is eligible. The error is an [UnavailableError]; with a
// context that has ended there is always one, which matches the context's error.
func (r *Resolver[T]) Get(ctx context.Context) (T, error) { //nolint:gocognit // one body: a call costs a seventh of it
	if r != nil && r.plan != nil && ctx != nil && ctx.Err() == nil {
		if plan := r.plan.plan.Load(); plan != nil {
			at := plan.Healthy.First()
			if !plan.InOrder {
				at = plan.First(plan.Healthy, true)
			}
			if at >= 0 {
				if made := plan.candidates[at].instance.Load(); made != nil {
					if r.plan.service.meter.Hit() {
						r.plan.timeLookup(pick.Caller{Context: ctx, Key: r.key})
					}
					return typed.Value[T](made), nil
				}
				return r.get(ctx, r.plan.iterateFrom(plan, at, healthy))
			}
		}
	}
	query, err := r.boundFor(ctx)
	if err != nil {
		var none T
		return none, err
	}
	return r.get(ctx, query.iterate(healthy))
}

// get is Get where a factory has to run, or none is eligible.
func (r *Resolver[T]) get(ctx context.Context, providers iterator) (none T, err error) {
	by := pick.Caller{Context: ctx, Key: r.key}
	for waited := false; ; waited = true {
		if ctx.Err() != nil {
			return none, r.missed(ctx)
		}
		for p := providers.advance(&by); p != nil && ctx.Err() == nil; p = providers.advance(&by) {
			made := p.obtain(ctx, providers.another)
			if providers.restartIfReplaced(p) {
				continue
			}
			if made != nil {
				r.plan.service.meter.Hit()
				return typed.Value[T](made), nil
			}
			providers.pass(p)
		}
		if ctx.Err() != nil || waited || !r.plan.awaitFirstProbe(ctx, healthy) {
			return none, r.missed(ctx)
		}
		providers = r.plan.iterate(healthy)
	}
}

// missed counts a look-up that found no provider, and returns the reasons.
func (r *Resolver[T]) missed(ctx context.Context) error {
	svc := r.plan.service
	svc.meter.Miss()
	unavailable := r.plan.unavailable(healthy, pick.Caller{Context: ctx, Key: r.key}, nil)
	if ctx.Err() != nil {
		svc.meter.MissFor(reason.ContextEnded)
		return fault.Join("registry: ", append(fault.OfContext(ctx), unavailable))
	}
	svc.meter.MissFor(unavailable.sight.MissCodes()...)
	return unavailable
}

// GetAll returns the instances of all providers that Get would give, in order, at most limit
// of them; zero or less means all. Rotations do not move. The error is an
// [UnavailableError]: there is at least one instance, or an error. It blocks as [Resolver.Get] does.
func (r *Resolver[T]) GetAll(ctx context.Context, limit int) ([]T, error) {
	query, err := r.boundFor(ctx)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, r.missed(ctx)
	}
	query.awaitFirstProbe(ctx, healthy)
	var found []T
	providers := query.list(healthy)
	for p := providers.advance(nil); p != nil; p = providers.advance(nil) {
		made, restarts := p.obtain(ctx, nil), providers.restarts
		if providers.pass(p); providers.restarts > restarts {
			found = nil // all of them are of one plan
			continue
		}
		if made != nil {
			providers.take()
			found = append(found, typed.Value[T](made))
		}
		if len(found) == limit && limit > 0 || ctx.Err() != nil {
			break
		}
	}
	if len(found) == 0 {
		return nil, r.missed(ctx)
	}
	query.service.meter.Hit()
	return found, nil
}

// Ready returns nil when a provider of the query could be given a call now, and an [UnavailableError] with every
// candidate and its reason when none could. A provider whose factory has not run yet counts. Ready runs nothing, moves
// no rotation and counts no look-up. When the registry closes or its [Orchestrator] stops, the error matches [ErrClosed].
func (r *Resolver[T]) Ready() error {
	query, err := r.bound()
	if err != nil {
		return err
	}
	if err := query.service.registry.errStopping(); err != nil {
		return err
	}
	if providers := query.list(admitting); providers.advance(nil) != nil {
		return nil
	}
	return query.unavailable(admitting, pick.Caller{Key: r.key}, nil)
}

// WaitReady blocks until [Resolver.Ready] returns nil. It wakes on changes, without polling. When ctx ends first,
// the error matches [ErrNotReady] and the context's error and cause, and unwraps to the [UnavailableError].
func (r *Resolver[T]) WaitReady(ctx context.Context) error {
	query, err := r.boundFor(ctx)
	if err != nil {
		return err
	}
	var missing error
	return query.service.registry.awaitReady(ctx, func() bool {
		missing = r.Ready()
		return missing == nil
	}, func() []error { return []error{missing} })
}
