// Package hedge asks another provider too when the first takes long, and takes
// the first answer: for calls whose latency matters more than their cost.
//
// It is a package of its own because a function that runs in several goroutines
// costs what [registry.Call] does not.
package hedge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

const (
	defaultAfter = 2 * time.Second
	defaultMost  = 2
	mostAllowed  = 16
)

// Policy says when another provider is asked. The zero value is the default.
type Policy struct {
	// After is how long an answer may take before another provider is asked too.
	// Default: 2 s. A good value is the 95th percentile of the latency.
	After time.Duration
	// Most is how many providers are asked at most, the first included; up to 16.
	// Default: 2.
	Most int
}

func (p Policy) withDefaults(options []registry.CallOption) (Policy, error) {
	refuse := func(field string, value any, bound string) error {
		return &registry.FieldError{Field: field, Value: fmt.Sprint(value), Bound: bound, Err: registry.ErrInvalid}
	}
	switch {
	case p.After < 0:
		return p, refuse("Policy.After", p.After, "0 (default 2s) or more")
	case p.Most < 0 || p.Most > mostAllowed:
		return p, refuse("Policy.Most", p.Most, fmt.Sprintf("0 (default %d) to %d", defaultMost, mostAllowed))
	}
	for _, option := range options {
		if text := option.String(); text == "OnceOnly" || text == "ReportTo" {
			return p, refuse("options", text, "options that make sense for several providers at once")
		}
	}
	if p.After == 0 {
		p.After = defaultAfter
	}
	if p.Most == 0 {
		p.Most = defaultMost
	}
	return p, nil
}

// Call runs function on the best provider, and on another one each time that
// [Policy.After] passes without an answer or one of them fails in a way that
// moves on. The first answer is returned.
//
// Every provider that is asked is leased: it passes the same limits and breaker
// as a [registry.Call] does, and its outcome counts. The others are cancelled
// when an answer is there, and not counted; their places stay taken until their
// functions return. The context of the winner is not cancelled when Call
// returns, so that a body can still be read: it ends with ctx, or when nothing
// refers to it any more.
//
// function runs in goroutines of its own, several at once; [registry.Registry.Close]
// waits for them. It must not have side effects: [registry.OnceOnly] is refused,
// with an error that matches [registry.ErrInvalid], as is [registry.ReportTo]. A
// panic is recorded and goes on to the caller. When all fail the error is a
// [registry.CallError]; when ctx ends first it matches ctx's error and cause.
func Call[T, R any](
	ctx context.Context, resolver *registry.Resolver[T], policy Policy,
	function func(context.Context, T) (R, error), options ...registry.CallOption,
) (R, error) {
	var none R
	policy, err := policy.withDefaults(options)
	if err != nil {
		return none, err
	}
	if ctx == nil || function == nil {
		return none, &registry.FieldError{Field: "ctx, function", Value: "nil", Bound: "both", Err: registry.ErrInvalid}
	}
	h := &hedged[T, R]{resolver: resolver, function: function, options: options, caller: ctx, results: make(chan result[R], mostAllowed)}
	// The end of the race lets go of those who still wait for a place.
	h.race, h.end = context.WithCancel(ctx)
	defer h.end()

	first, err := resolver.Acquire(ctx, options...)
	if err != nil {
		return none, err
	}
	h.asked = append(h.asked, first.Provider())
	go h.run(first) //nolint:contextcheck // the call has it
	return h.await(policy)
}

// hedged is one call in progress.
type hedged[T, R any] struct {
	resolver *registry.Resolver[T]
	function func(context.Context, T) (R, error)
	options  []registry.CallOption
	caller   context.Context //nolint:containedctx // lives as long as the call
	race     context.Context //nolint:containedctx // ends with the race
	end      context.CancelFunc
	results  chan result[R] // has room for all

	// mu guards asked, and is held while another provider is acquired, so that no
	// two of them are the same.
	mu    sync.Mutex
	asked []string
}

// result is how one of them ended.
type result[R any] struct {
	value    R
	attempt  registry.Attempt
	panicked *registry.PanicError
	acquired bool // else there was nobody to ask
}

func (h *hedged[T, R]) await(policy Policy) (R, error) {
	var none R
	launched, running := 1, 1
	var attempts []registry.Attempt
	timer := time.NewTimer(policy.After)
	defer timer.Stop()
	more := func() {
		if launched < policy.Most {
			launched++
			running++
			go h.another()
			timer.Reset(policy.After)
		}
	}
	for running > 0 {
		select {
		case <-timer.C:
			more()
		case r := <-h.results:
			running--
			switch {
			case r.panicked != nil:
				panic(r.panicked.Value)
			case !r.acquired:
				continue
			case r.attempt.Err == nil:
				return r.value, nil
			}
			attempts = append(attempts, r.attempt)
			if next := r.attempt.Class.Rule().Next; next == verdict.NextNo || next == verdict.NextWhenAllowed {
				return none, h.failed(attempts)
			}
			more()
		case <-h.caller.Done():
			return none, fmt.Errorf("hedge: call of service %q: %w: %w", h.resolver.Service(), h.caller.Err(), context.Cause(h.caller))
		}
	}
	return none, h.failed(attempts)
}

func (h *hedged[T, R]) failed(attempts []registry.Attempt) error {
	return &registry.CallError{Service: h.resolver.Service(), Attempts: attempts}
}

// another asks a provider that was not asked before.
func (h *hedged[T, R]) another() {
	lease, err := h.acquireOther()
	if err != nil {
		h.results <- result[R]{}
		return
	}
	h.run(lease)
}

func (h *hedged[T, R]) acquireOther() (*registry.Lease[T], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	lease, err := h.resolver.AcquireOther(h.race, h.asked, h.options...)
	if err == nil {
		h.asked = append(h.asked, lease.Provider())
	}
	return lease, err
}

// The lease outlives its context by a while, so that a function that heeds the
// context reports its outcome itself.
const reportingTime = time.Second

func (h *hedged[T, R]) run(lease *registry.Lease[T]) {
	lease.Extend(reportingTime)
	ctx, cancel, detach := outliving(h.caller, lease.Context())
	stop := context.AfterFunc(h.race, cancel) // a loser is told
	r := result[R]{acquired: true, attempt: registry.Attempt{Provider: lease.Provider()}}
	began := time.Now()
	returned := false
	defer func() {
		r.attempt.Duration = time.Since(began)
		lost := !stop() && h.caller.Err() == nil // the race was over before
		switch {
		case !returned:
			r.abort(recover())
		case r.attempt.Err == nil && !lost:
			detach() // from the lease, whose end is not to end the context
		}
		outcome := r.attempt.Err
		if lost && returned {
			outcome = verdict.As(cmp.Or(outcome, errLost), verdict.Verdict{Class: verdict.ClassHedgeLoser})
		}
		r.attempt.Class = lease.Done(outcome)
		if r.attempt.Err != nil || lost {
			cancel()
		}
		h.results <- r
	}()
	r.value, r.attempt.Err = h.function(ctx, lease.Value)
	returned = true
}

// abort notes a function that did not return.
func (r *result[R]) abort(value any) {
	if value == nil {
		r.attempt.Err = verdict.As(errExited, verdict.Verdict{Class: verdict.ClassExit})
		return
	}
	r.panicked = &registry.PanicError{Value: value, Stack: debug.Stack()}
	r.attempt.Err = verdict.As(r.panicked, verdict.Verdict{Class: verdict.ClassPanic})
}

var (
	errExited = errors.New("hedge: the function ended its goroutine (runtime.Goexit)")
	errLost   = errors.New("hedge: another answered first")
)

// outliving returns a context with the values, deadline and end of the lease's
// context. After detach only the caller's context ends it, and cancel.
func outliving(caller, lease context.Context) (ctx context.Context, cancel, detach func()) {
	inner, cancelInner := context.WithCancelCause(context.WithoutCancel(lease))
	stopLease := context.AfterFunc(lease, func() { cancelInner(context.Cause(lease)) })
	stopCaller := context.AfterFunc(caller, func() { cancelInner(context.Cause(caller)) })
	deadline, ok := lease.Deadline()
	outer := &outlivingContext{Context: inner, deadline: deadline, hasDeadline: ok}
	// A caller's context may live much longer than what was read under this one:
	// it is to forget a context that nobody else remembers.
	runtime.AddCleanup(outer, func(stop func() bool) { stop() }, stopCaller)
	return outer, func() { cancelInner(context.Canceled) }, func() { stopLease() }
}

// outlivingContext is the handle of a context; the context itself does not refer
// to it.
type outlivingContext struct {
	context.Context

	deadline    time.Time
	hasDeadline bool
}

func (c *outlivingContext) Deadline() (time.Time, bool) { return c.deadline, c.hasDeadline }
