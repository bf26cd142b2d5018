package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/pick"
)

// Registration is the handle of one provider in its registry.
//
// All methods are safe for concurrent use, and block only where they say so. After the provider has left, reading
// still works, and changing returns an error matching [ErrNotRegistered]. While a test has replaced the provider
// ([Service.Swap]), the handle is that of the replacement. A change is in force when its method returns, and is
// published as one event.
type Registration struct {
	provider *provider
}

// Name returns the provider's name, including a name that the registry made.
func (r *Registration) Name() string { return r.orLeft().name() }

// Info returns the view of the provider at this moment. It changes nothing.
func (r *Registration) Info() Info { return r.current().info() }

// Definition returns the provider's serialisable description.
func (r *Registration) Definition() Definition {
	r.orLeft().registry.mu.Lock()
	defer r.orLeft().registry.mu.Unlock()
	return r.current().definitionLocked()
}

// Left returns a channel that is closed when the provider has left the registry and its last call has ended.
func (r *Registration) Left() <-chan struct{} { return r.orLeft().drain.Idle() }

// Unregister removes the provider. New picks stop at once. Unregister then blocks until calls and leases in flight
// have ended and an instance that a factory made is closed, and returns the error of closing it.
//
// When ctx ends first, the contexts of the calls in flight are cancelled. When they do not end within another
// second, the error matches [ErrStuck] and the context's error. Unregister may be called any number of times: on a
// provider that has left it waits in the same way.
func (r *Registration) Unregister(ctx context.Context) error {
	if r == nil || r.provider == nil {
		return invalid("Registration", raw("nil or zero"), "a handle that was handed out")
	}
	if ctx == nil {
		return errNilContext()
	}
	left := r.orLeft().registry.unregister(r.orLeft(), "unregistered")
	if left == nil {
		left = []*provider{r.orLeft()}
	} else {
		quiesceAll(left)
	}
	return awaitReleased(ctx, left)
}

// SetPriority changes the provider's rank inside its group and returns the previous
// priority. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) SetPriority(priority Priority) (previous Priority, err error) {
	if !priority.valid() {
		return 0, errBadPriority(priority)
	}
	err = r.change("priority", func(p *provider) (from, to any, err error) {
		previous, p.definition.Priority = p.definition.Priority, priority
		return previous, priority, nil
	})
	return previous, err
}

// SetGroup moves the provider to another priority group and returns the number of the
// previous one. The provider takes on the strategy of a group that exists, and brings
// its own to a new one. The error matches [ErrNotRegistered].
func (r *Registration) SetGroup(number int) (previous int, err error) {
	err = r.change("group", func(p *provider) (from, to any, err error) {
		previous = p.group.Number
		strategy := p.group.Strategy
		p.service.groups.Leave(p.group)
		p.service.assign(p, pick.GroupID{Handler: p.definition.Handler, Number: number, Override: p.overrideID}, strategy)
		return previous, number, nil
	})
	return previous, err
}

// SetStrategy changes the strategy of the provider's whole group, for all its members,
// and returns the previous one. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) SetStrategy(strategy Strategy) (previous Strategy, err error) {
	if strategy.IsZero() {
		return previous, invalid("Strategy", strategy.String(), "a strategy")
	}
	if err := checkStrategy(strategy); err != nil {
		return previous, err
	}
	strategy = r.orLeft().registry.strategies.Resolve(strategy)
	err = r.change("strategy of the group", func(p *provider) (from, to any, err error) {
		if strategy.Named() && strategy.Same(p.group.Strategy) {
			strategy = p.group.Strategy
		}
		if v := p.registry.strategies.Check(strategy); v != nil {
			return nil, nil, asFieldError("", v)
		}
		previous, p.group.Strategy = p.group.Strategy, strategy
		p.group.SetBy = p.name()
		return previous, strategy, nil
	})
	return previous, err
}

// SetWeight changes the provider's share among others, for strategies that use weights, and returns the previous
// one. Zero is no traffic, under any strategy: from now on no look-up or call is given to the provider; those in
// progress go on. Measurements are kept. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) SetWeight(weight float64) (previous float64, err error) {
	if err := checkWeight(weight); err != nil {
		return 0, err
	}
	err = r.change("weight", func(p *provider) (from, to any, err error) {
		previous = p.definition.share()
		p.definition.Weight, p.definition.NoTraffic = weight, weight == 0
		if weight == 0 {
			p.changeGateLocked(0, gateNoTraffic, nil)
		} else {
			p.changeGateLocked(gateNoTraffic, 0, nil)
		}
		return previous, weight, nil
	})
	return previous, err
}

// SetAttemptTimeout changes the attempt timeout (zero: the default) for attempts that begin from now on, and
// returns the previous one. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) SetAttemptTimeout(timeout time.Duration) (previous time.Duration, err error) {
	most, err := checkTimeout("AttemptTimeout", timeout)
	if err != nil {
		return 0, err
	}
	err = r.change("attempt timeout", func(p *provider) (from, to any, err error) {
		previous = p.attemptTimeout().most
		p.timeout.Store(int64(timeout))
		return previous, most, nil
	})
	return previous, err
}

// SetLimits changes the limits of the provider's whole domain and returns the previous
// ones. Attempts in progress keep their places, and queued calls stay queued; rates
// start over. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) SetLimits(policy LimitPolicy) (previous LimitPolicy, err error) {
	if policy, err = policy.withDefaults(); err != nil {
		return LimitPolicy{}, err
	}
	err = r.change("limits of the domain", func(p *provider) (from, to any, err error) {
		previous = LimitPolicy(p.domain.Policy())
		p.limitDomain(policy)
		return fmt.Sprintf("%+v", previous), fmt.Sprintf("%+v", policy), nil
	})
	return previous, err
}

// SetRetry changes the retry policy for calls that fail from now on, and returns the previous one. The budget
// starts over. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) SetRetry(policy RetryPolicy) (previous RetryPolicy, err error) {
	if policy, err = policy.withDefaults(); err != nil {
		return RetryPolicy{}, err
	}
	err = r.change("retry", func(p *provider) (from, to any, err error) {
		previous = RetryPolicy(p.effects.SetRetryPolicy(limit.RetryPolicy(policy)))
		return fmt.Sprintf("%+v", previous), fmt.Sprintf("%+v", policy), nil
	})
	return previous, err
}

// SetBreaker changes the breaker's policy and returns the previous one. State and counts are kept: a closed breaker
// follows the new policy from the next outcome on. An open or half-open period in progress ends as it began, except
// for the number of trial slots. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) SetBreaker(policy BreakerPolicy) (previous BreakerPolicy, err error) {
	p, err := r.member()
	if err != nil {
		return BreakerPolicy{}, err
	}
	previous, err = p.breaker.configure(policy)
	if err != nil {
		return BreakerPolicy{}, err
	}
	p.changeGate(0, 0, &event.Event{
		Kind: event.Changed, Reason: "breaker", From: fmt.Sprintf("%+v", previous), To: fmt.Sprintf("%+v", policy),
	})
	return previous, nil
}

// Breaker returns the state of the provider's breaker. It changes nothing.
func (r *Registration) Breaker() BreakerStats { return r.current().breaker.stats() }

// ForceOpen opens the breaker for the given time, which must be more than zero, whatever its state; then the
// breaker is half-open. The reason, cut to one line of 256 bytes, is part of errors and explanations. The next
// ordinary opening has the ordinary recovery time again. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) ForceOpen(openFor time.Duration, reason string) error {
	p, err := r.member()
	if err != nil {
		return err
	}
	return p.breaker.forceOpen(openFor, reason)
}

// Reset closes the breaker with all its counts at zero, and ends a cooldown of the provider or its domain together
// with its growth. The error matches [ErrNotRegistered].
func (r *Registration) Reset() error {
	p, err := r.member()
	if err != nil {
		return err
	}
	p.breaker.Reset()
	p.resetCooldown()
	return nil
}

// change makes one change of membership or settings, in one step with its event.
func (r *Registration) change(what string, apply func(*provider) (from, to any, err error)) error {
	r.orLeft().registry.mu.Lock()
	defer r.orLeft().registry.mu.Unlock()
	if err := r.presentLocked(); err != nil {
		return err
	}
	p := r.current()
	from, to, err := apply(p)
	if err != nil {
		return err
	}
	p.service.outdate()
	p.registry.bus.Publish(p.event(event.Event{
		Kind: event.Changed, Reason: what, From: fmt.Sprint(from), To: fmt.Sprint(to),
	}))
	return nil
}

// current returns the provider that the handle is of now.
func (r *Registration) current() *provider { return r.orLeft().current() }

// member returns the provider that the handle is of now, or an error when it has left.
func (r *Registration) member() (*provider, error) {
	r.orLeft().registry.mu.Lock()
	defer r.orLeft().registry.mu.Unlock()
	return r.current(), r.presentLocked()
}

// presentLocked returns an error when the provider has left.
func (r *Registration) presentLocked() error {
	if r.current().hasLeft() {
		return fmt.Errorf("registry: provider %q: %w", r.orLeft().name(), ErrNotRegistered)
	}
	return nil
}
