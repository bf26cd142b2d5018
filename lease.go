package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/judge"
	"github.com/capreg/registry/internal/outcome"
	"github.com/capreg/registry/internal/typed"
	"github.com/capreg/registry/verdict"
)

// Lease is a provider that was acquired and whose outcome will be reported: for work that does not fit into one
// function, such as a stream. Use [Resolver.Acquire] to get one, and report with [Lease.Done] or [Lease.MoveOn].
//
// A lease counts as a call in flight until it ends: when its outcome is reported, or when it expires, a second after
// its context has ended at the attempt timeout of its provider (after an hour with [NoTimeout]). One that expires ends
// as a failure, and an event says so. Value may be used until then. All methods are safe for concurrent use.
//
// The leases that come from one another belong to one call: they share its search for
// providers, its report, its hooks and its idempotency key.
type Lease[T any] struct {
	// Value is the provider's instance.
	Value T

	held leasedAttempt
}

// made reports whether the lease was handed out.
func (l *Lease[T]) made() bool { return l != nil && l.held.call != nil }

// Provider returns the name of the provider.
func (l *Lease[T]) Provider() string {
	if !l.made() {
		return ""
	}
	return l.held.attempt.provider.name()
}

// Context returns the context to work in: it has the values of the context that was acquired
// with and ends with it, at the attempt timeout, with the lease, and when the provider is told
// to stop. With [NoTimeout] it is the context that was acquired with.
func (l *Lease[T]) Context() context.Context {
	if !l.made() {
		return context.Background()
	}
	return l.held.ctx
}

// Attempts returns the tries of the call that have failed, in order; with hooks or a report,
// those that succeeded as well.
func (l *Lease[T]) Attempts() []Attempt {
	if !l.made() {
		return nil
	}
	shared := l.held.call
	shared.mu.Lock()
	defer shared.mu.Unlock()
	return slices.Clone(shared.history.attempts)
}

// Done reports the outcome of the work, frees the provider, and returns the class of the outcome. The error is the
// one that a function of [Call] would return. The call is over with its last lease. Only the first report of a lease
// counts; one after its expiry is ignored, which [verdict.ClassIgnored] says.
//
// An error that matches [context.Canceled], without an answer of the provider or a verdict of its own, means that the
// holder gave up, also where the context that was acquired with goes on: it blames the provider for nothing
// ([verdict.ClassCancelled]). Where the holder cancelled because of the provider, report that: [verdict.As] states it.
func (l *Lease[T]) Done(err error) (class verdict.Class) {
	if !l.made() || !l.held.end() {
		return verdict.ClassIgnored
	}
	if err == nil && l.held.concludeAnswer() {
		return verdict.ClassSuccess
	}
	defer l.held.call.close() // deferred: a hook may exit the goroutine
	_, ended := l.held.conclude(err, judge.GaveUp)
	return ended.Class
}

// MoveOn reports the outcome as [Lease.Done] does, and goes on with the call as [Call] does: with a retry, where
// the provider's policy has one, or with the next provider, as a new lease. It blocks as [Resolver.Acquire] does.
//
// There is a lease or an error: the call's when the outcome is final or no provider is left, the reported one when a
// classifier counts it as an answer, and one that matches [ErrLeaseDone] after a success, which nothing follows, and
// for a lease that has ended already.
func (l *Lease[T]) MoveOn(err error) (*Lease[T], error) {
	if !l.made() || !l.held.end() {
		return nil, errLeaseDone(l.Provider())
	}
	defer l.held.call.close()
	v, _ := l.held.conclude(err, nil)
	if outcome.IsSuccess(v.Class) {
		return nil, cmp.Or(err, errLeaseDone(l.Provider()))
	}
	c := l.held.call.nextSearch()
	c.resume(&l.held, v)
	if c.state == callEnded {
		return nil, c.failure()
	}
	return nextLease(&c, &Lease[T]{})
}

// Guard runs a part of the work, such as the provider's own code, and handles its panic. The panic goes on after it
// was recorded, or, as in [Call], becomes a [verdict.PanicError] ([Options.PanicsAsErrors]) that is yet to be
// reported. A nil work is an error that matches [ErrInvalid].
func (l *Lease[T]) Guard(work func() error) (err error) {
	if work == nil {
		return invalid("work", raw("nil"), "a function")
	}
	return fault.Guard(work, func(value any) (bool, error) {
		switch {
		case value != nil && l.made() && l.held.attempt.provider.registry.options.PanicsAsErrors:
			return true, fault.Bound(fault.Panicked(value))
		case l.made() && value == nil: // runtime.Goexit
			l.held.abort(verdict.ClassExit, nil)
		case l.made():
			l.held.abort(verdict.ClassPanic, fault.Panicked(value))
		}
		return false, nil
	})
}

func errLeaseDone(provider string) error {
	return fmt.Errorf("registry: lease of provider %q: %w", provider, ErrLeaseDone)
}

// Acquire returns the best provider as a lease, for work whose outcome will be reported with [Lease.Done] or
// [Lease.MoveOn]. Like [Call] it moves on from providers that cannot be entered; the rest is the caller's to report.
//
// It blocks only for a factory or a first probe that has no result yet and for a place in a full bulkhead, within
// ctx. The error is an [UnavailableError], or a [CallError] when ctx had ended.
func (r *Resolver[T]) Acquire(ctx context.Context, options ...CallOption) (*Lease[T], error) {
	query, err := r.bound()
	if err != nil {
		return nil, err
	}
	l := &firstLease[T]{}
	var first firstAttempt
	if err := l.call.accept(ctx, query, r.key, options, &first.hooks); err != nil {
		return nil, err
	}
	if !l.call.observed && first.admit(l.call.caller.Ctx, query, &l.call) { //nolint:contextcheck // the call has it
		l.lease.Value = typed.Value[T](first.instance)
		l.lease.held.initFirst(&l.call, &first)
		return &l.lease, nil
	}
	return l.search(&first) //nolint:contextcheck // the call has it
}

// AcquireAll leases every provider that a call could enter, in order, at most limit of them; zero or less means all.
// It is the base of broadcast and fan-out: each lease is to be reported by itself. Rotations do not move, and the call
// does not queue. A provider that replaces another one meanwhile is among them, once, and perhaps out of order.
//
// It blocks for factories and first probes that have no result yet, within ctx. The error is an [UnavailableError],
// or a [CallError] when ctx had ended: there is at least one lease, or an error.
func (r *Resolver[T]) AcquireAll(ctx context.Context, limit int, options ...CallOption) ([]*Lease[T], error) {
	var leases []*Lease[T]
	err := r.acquireEach(ctx, options, func(l *Lease[T]) bool {
		leases = append(leases, l)
		return len(leases) != limit
	})
	return leases, err
}
