package registry

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/outcome"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

// Registration is the handle of one provider in its registry.
//
// All methods are safe for concurrent use, and block only where they say so. After the provider has left, reading
// still works, and changing returns an error matching [ErrNotRegistered]. While a test has replaced the provider
// (registrytest.Swap), the handle is that of the replacement. A change is in force when its method returns, and is
// published as one event.
type Registration struct {
	provider *provider
}

// Name returns the provider's name, including a name that the registry made.
func (r *Registration) Name() string { return r.orLeft().name() }

// Info returns the view of the provider at this moment. It changes nothing.
func (r *Registration) Info() Info { return r.current().info() }

// Definition returns the provider's serialisable description.
func (r *Registration) Definition() Definition { return r.Info().Definition }

// Left returns a channel that is closed when the provider has left the registry and its last call has ended.
func (r *Registration) Left() <-chan struct{} { return r.orLeft().drain.Idle() }

// Unregister removes the provider. New picks stop at once. Unregister then blocks until calls and leases in flight
// have ended and an instance that a factory made is closed, and returns the error of closing it.
//
// When ctx ends first, the contexts of the calls in flight are cancelled. When they do not end within another
// second, the error matches [ErrStuck] and the context's error; a factory that ignores the end of its context is given
// up after ten seconds. Unregister may be called any number of times: on a provider that has left it waits as before.
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

// Priority returns the provider's rank inside its group.
func (r *Registration) Priority() Priority { return r.Definition().Priority }

// SetPriority changes the provider's rank inside its group and returns the previous
// priority. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) SetPriority(priority Priority) (previous Priority, err error) {
	err = r.change(prioritySetting(priority, &previous))
	return previous, err
}

// Group returns the number of the provider's priority group.
func (r *Registration) Group() int { return r.Definition().Group }

// SetGroup moves the provider to another priority group and returns the number of the previous one. The provider takes
// on the strategy of a group that exists, and brings its own to a new one. The error matches [ErrNotRegistered].
func (r *Registration) SetGroup(number int) (previous int, err error) {
	err = r.change(groupSetting(number, &previous), nil)
	return previous, err
}

// Strategy returns the strategy of the provider's whole group.
func (r *Registration) Strategy() selection.Strategy { return r.Definition().Strategy }

// SetStrategy changes the strategy of the provider's whole group, for all its members,
// and returns the previous one. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) SetStrategy(strategy selection.Strategy) (previous selection.Strategy, err error) {
	err = r.change(strategySetting(strategy, &previous))
	return previous, err
}

// Weight returns the provider's share among others; zero: it gets no traffic.
func (r *Registration) Weight() float64 { return r.Definition().Weight }

// SetWeight changes the provider's share among others, for strategies that use weights, and returns the previous
// one. Zero is no traffic, under any strategy: from now on no look-up or call is given to the provider; those in
// progress go on. Measurements are kept. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) SetWeight(weight float64) (previous float64, err error) {
	err = r.change(weightSetting(weight, &previous))
	return previous, err
}

// AttemptTimeout returns the attempt timeout that was given; zero: none was, and [Info] has the default in force.
func (r *Registration) AttemptTimeout() time.Duration {
	return time.Duration(r.current().timeout.Load())
}

// SetAttemptTimeout changes the attempt timeout (zero: the default) for attempts that begin from now on, and
// returns the previous one, as [Registration.AttemptTimeout] does. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) SetAttemptTimeout(timeout time.Duration) (previous time.Duration, err error) {
	err = r.change(timeoutSetting(timeout, &previous))
	return previous, err
}

// Limits returns the limits of the provider's whole domain, with their defaults.
func (r *Registration) Limits() LimitPolicy { return r.Info().Limits }

// SetLimits changes the limits of the provider's whole domain and returns the previous ones. Attempts in progress keep
// their places, and queued calls stay queued; rates start over. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) SetLimits(policy LimitPolicy) (previous LimitPolicy, err error) {
	err = r.change(limitsSetting(policy, &previous))
	return previous, err
}

// Retry returns the retry policy, with its defaults.
func (r *Registration) Retry() RetryPolicy { return r.Info().Retry }

// SetRetry changes the retry policy for calls that fail from now on, and returns the previous one. The budget
// starts over. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) SetRetry(policy RetryPolicy) (previous RetryPolicy, err error) {
	err = r.change(retrySetting(policy, &previous))
	return previous, err
}

// BreakerPolicy returns the policy of the breaker, with its defaults.
func (r *Registration) BreakerPolicy() BreakerPolicy { return r.Breaker().Policy }

// SetBreakerPolicy changes the breaker's policy and returns the previous one. State and counts are kept: a closed breaker
// follows the new policy from the next outcome on. An open or half-open period in progress ends as it began, except
// for the number of trial slots. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) SetBreakerPolicy(policy BreakerPolicy) (previous BreakerPolicy, err error) {
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

// CoolDown leaves the provider alone, or all of its domain, as c says: for its class and scope, until its end, for the
// cause. So a cooldown can outlive the process that it began in. It does not grow, and a longer one in progress stays.
// The zero value of c ends the cooldowns of the provider and of its domain, with their growth, and leaves its breaker
// alone. The errors match [ErrInvalid] or [ErrNotRegistered].
func (r *Registration) CoolDown(c status.Cooldown, cause error) error {
	_, badClass := c.Class.MarshalText()
	_, badScope := c.Scope.MarshalText()
	if err := cmp.Or(badClass, badScope); err != nil {
		return err
	}
	left, ends := time.Until(c.Until), c == status.Cooldown{}
	if left <= 0 && !ends {
		return invalid("Until", c.Until, "a time to come")
	}
	p, err := r.member()
	if err == nil && ends {
		p.resetCooldown()
	} else if err == nil {
		p.cool(outcome.Outcome{Class: c.Class, Scope: c.Scope, After: left, Cause: fault.Bound(cause)})
	}
	return err
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

// change makes one change of membership or settings, in one step with its event, unless its input was refused.
func (r *Registration) change(s setting, refused error) error {
	if refused != nil {
		return refused
	}
	p, err := r.makeChange(s)
	if err == nil && s.after != nil {
		s.after(p)
	}
	return err
}

// makeChange makes the change, and takes the lock for it.
func (r *Registration) makeChange(s setting) (*provider, error) {
	r.orLeft().registry.mu.Lock()
	defer r.orLeft().registry.mu.Unlock()
	p := r.current()
	if err := r.presentLocked(); err != nil {
		return p, err
	}
	if err := s.check(p); err != nil {
		return p, err
	}
	s.applyTo(p)
	return p, nil
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
		return errLeft(r.orLeft())
	}
	return nil
}

func errLeft(p *provider) error {
	return fmt.Errorf("registry: provider %q: %w", p.id(), ErrNotRegistered)
}
