// Package hedge calls another provider too when the first one takes long, and returns the first
// answer: for calls whose latency matters more than their cost.
//
// It is a package of its own because a function that runs in several goroutines has costs that
// [registry.Call] avoids.
package hedge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/jsonform"
	"github.com/capreg/registry/verdict"
)

const (
	defaultAfter     = 2 * time.Second
	defaultProviders = 2
	maxProviders     = 16
)

// Policy configures the additional calls. The zero value of each field is its default.
type Policy struct {
	// After is the time without an answer after which another provider is called too. Default:
	// 2 s. A good value is the 95th percentile of the latency.
	After time.Duration `json:"after,omitempty"`
	// MaxProviders bounds the number of providers called, the first included; up to 16. Default: 2.
	MaxProviders int `json:"max_providers,omitempty"`
	// Discard is called with each value that a provider has returned without an error after the
	// call was decided, so that it can be closed. It runs in the goroutine of that provider's
	// function, and its panic is recovered. Default: the value is dropped.
	Discard func(value any) `json:"-"`
}

// MarshalJSON returns the fields by their tags, with durations as text such as "1m30s", without Discard.
func (p Policy) MarshalJSON() ([]byte, error) { return jsonform.Marshal(p) }

// UnmarshalJSON reads what MarshalJSON writes. Its errors name field, value and bound, match [registry.ErrInvalid] and change nothing.
func (p *Policy) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, p) }

func (p Policy) withDefaults(options []registry.CallOption) (Policy, error) {
	refuse := func(field string, value any, bound string) error {
		return &registry.FieldError{Field: field, Value: fmt.Sprint(value), Bound: bound, Err: registry.ErrInvalid}
	}
	switch {
	case p.After < 0:
		return p, refuse("Policy.After", p.After, "0 (default 2s) or more")
	case p.MaxProviders < 0 || p.MaxProviders > maxProviders:
		return p, refuse("Policy.MaxProviders", p.MaxProviders, fmt.Sprintf("0 (default %d) to %d", defaultProviders, maxProviders))
	}
	for _, option := range options {
		if option.IsOnceOnly() || option.IsReportTo() {
			return p, refuse("options", option, "options that make sense for several providers at once")
		}
	}
	if p.After == 0 {
		p.After = defaultAfter
	}
	if p.MaxProviders == 0 {
		p.MaxProviders = defaultProviders
	}
	return p, nil
}

// Call runs function on the best provider, and on another one each time that [Policy.After]
// passes without an answer or a provider fails with an outcome that fails over. It returns the
// first answer.
//
// Each of these providers is leased: it passes the same budget, limits and breaker as a
// [registry.Call] does, and its outcome counts. After the first answer the others are
// cancelled, and not counted, however ctx ends then; their slots stay taken until their functions
// return. An error of another provider than the first one that is about the request does not end
// the call while the first one may answer. The context
// of the winner is not cancelled when Call returns, so that a body can still be read: it ends
// with ctx, and with the attempt timeout.
//
// function runs in goroutines of its own, several at once; [registry.Registry.Close] waits for
// them. It must not have side effects: [registry.OnceOnly] is refused, with an error that
// matches [registry.ErrInvalid], and so is [registry.ReportTo], since losers would change the
// report after Call has returned; hooks see every attempt. A panic is
// recorded and goes on to the caller, unless [registry.Options.PanicsAsErrors] is set. When all
// fail the error is a [registry.CallError]; when ctx ends first it matches ctx's error and
// cause.
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
	h := &hedged[T, R]{service: resolver.Service(), function: function, caller: ctx, most: int64(policy.MaxProviders), discard: policy.Discard, results: make(chan result[R], maxProviders)}
	// The end of the race cancels the losers, and attempts that still wait for a slot.
	h.race, h.end = context.WithCancel(ctx)
	defer h.end()

	first, err := resolver.Acquire(h.race, options...) //nolint:contextcheck // derived from ctx
	if err != nil {
		return none, err
	}
	h.called.Store(1)
	go h.run(first)
	return h.await(policy, first)
}

// hedged is one call in progress.
type hedged[T, R any] struct {
	service  string
	function func(context.Context, T) (R, error)
	caller   context.Context //nolint:containedctx // lives as long as the call
	race     context.Context //nolint:containedctx // ends with the race
	end      context.CancelFunc
	results  chan result[R] // buffers one result of each run
	most     int64
	called   atomic.Int64
	discard  func(any)
	decision atomic.Uint32 // open until one of the others is swapped in
}

// What a call is decided by.
const (
	open     uint32 = iota
	answered        // an answer
	failed          // a failure, or the end of the caller
)

// result is the end of a run.
type result[R any] struct {
	value    R
	first    bool // of the provider that was called first, or those its failures led to
	won      bool
	final    bool // no other provider may be tried
	err      error
	panicked *verdict.PanicError
}

// mayAsk reserves one of the allowed providers, if any is left.
func (h *hedged[T, R]) mayAsk() bool {
	if h.called.Add(1) <= h.most {
		return true
	}
	h.called.Add(-1)
	return false
}

func (h *hedged[T, R]) await(policy Policy, first *registry.Lease[T]) (R, error) {
	var none R
	var failure error
	timer := time.NewTimer(policy.After)
	defer timer.Stop()
	for running := 1; running > 0; {
		select {
		case <-timer.C:
			if h.mayAsk() {
				running++
				go h.another(first)
				timer.Reset(policy.After)
			}
		case r := <-h.results:
			running--
			if r.err != nil {
				failure = r.err
			}
			if r.won {
				return r.value, nil
			}
			if h.endsWith(r, running) {
				return h.conclude(r, failure)
			}
		case <-h.caller.Done():
			return h.conclude(result[R]{}, failure)
		}
	}
	return none, failure
}

// endsWith reports whether the call ends with r, beside which others are running.
func (h *hedged[T, R]) endsWith(r result[R], running int) bool {
	return r.panicked != nil || r.final && (r.first || running == 0) || h.caller.Err() != nil
}

// conclude ends the wait after r, as no further provider may be tried. A run that has won meanwhile
// decides the result.
func (h *hedged[T, R]) conclude(r result[R], failure error) (none R, _ error) {
	switch {
	case !h.decision.CompareAndSwap(open, failed):
		return h.winner(), nil
	case r.panicked != nil:
		panic(r.panicked.Value)
	case h.caller.Err() != nil:
		return none, h.ended()
	}
	return none, failure
}

// winner waits for the result of the run that has won already.
func (h *hedged[T, R]) winner() R {
	for {
		if r := <-h.results; r.won {
			return r.value
		}
	}
}

// ended returns the error of a caller whose context has ended.
func (h *hedged[T, R]) ended() error {
	return fmt.Errorf("hedge: call of service %q: %w: %w", h.service, h.caller.Err(), context.Cause(h.caller))
}

// another runs on a provider that was not tried before, if there is one.
func (h *hedged[T, R]) another(first *registry.Lease[T]) {
	var r result[R]
	defer func() { h.results <- r }() // also when a hook or an authoriser exits the goroutine
	lease, err := first.Steps().Beside()
	if err != nil {
		h.called.Add(-1) // no provider was called
		return
	}
	h.failOver(lease, &r)
}

// run runs on the provider of the lease.
func (h *hedged[T, R]) run(lease *registry.Lease[T]) {
	r := result[R]{first: true}
	defer func() { h.results <- r }() // also when the function exits the goroutine
	h.failOver(lease, &r)
}

// failOver runs on the provider of the lease, and then on those that its failures lead to.
func (h *hedged[T, R]) failOver(lease *registry.Lease[T], r *result[R]) {
	for lease != nil {
		lease = h.attempt(lease, r)
	}
}

// attempt runs on one provider, and returns the lease of the next one, if there is one.
func (h *hedged[T, R]) attempt(lease *registry.Lease[T], r *result[R]) (next *registry.Lease[T]) {
	r.err, r.final = errExited, true // the result if the function exits the goroutine
	var won bool
	var err error
	panicked := fault.Run(func() error { r.value, won, err = h.ask(lease); return nil })
	if errors.As(panicked, &r.panicked) {
		return nil
	}
	r.err, r.final, r.won = nil, false, won
	if won {
		lease.Done(nil)
		return nil
	}
	if err == nil {
		h.drop(r)
	}
	if h.lost(err) {
		lease.Done(verdict.As(cmp.Or(err, errLost), verdict.Verdict{Class: verdict.ClassHedgeLoser}))
		return nil
	}
	r.err = err
	if !h.mayAsk() {
		class := lease.Done(err)
		r.final = class.Rule().Next == verdict.NextNo
		if failure := lease.Steps().Failure(); failure != nil {
			r.err = failure
		}
		return nil
	}
	next, failure := lease.MoveOn(err)
	if next == nil {
		h.called.Add(-1)
		r.err = failure
		attempts := lease.Attempts()
		r.final = len(attempts) > 0 && attempts[len(attempts)-1].Class.Rule().Next == verdict.NextNo
	}
	return next
}

// lost reports whether an attempt that ended with err, without winning, is a loser. After an answer it
// is one however the caller's context ends.
func (h *hedged[T, R]) lost(err error) bool {
	decision := h.decision.Load()
	return decision == answered || h.caller.Err() == nil && (err == nil || decision == failed)
}

// drop discards a value that is not returned.
func (h *hedged[T, R]) drop(r *result[R]) {
	var none R
	value := r.value
	r.value = none
	if h.discard != nil {
		_ = fault.Run(func() error { h.discard(value); return nil })
	}
}

// ask calls the function with the provider of the lease. The context of the function ends
// with it, also when it panics or exits the goroutine, unless it is the first to answer.
func (h *hedged[T, R]) ask(lease *registry.Lease[T]) (value R, won bool, err error) {
	ctx, cancel, detach := outliving(h.caller, lease.Context())
	defer func() {
		if !won {
			cancel()
		}
	}()
	err = lease.Guard(func() (err error) {
		value, err = h.function(ctx, lease.Value)
		return err
	})
	if err == nil && h.decision.CompareAndSwap(open, answered) {
		detach() // the end of the lease must not end the winner's context
		won = true
	}
	return value, won, err
}

var (
	errExited = errors.New("hedge: the function ended its goroutine (runtime.Goexit)")
	errLost   = errors.New("hedge: another provider answered first")
)

// outliving returns a context with the values, deadline and end of the lease's
// context. After detach the lease's end does not end it: only its deadline, the
// caller's context and cancel do.
func outliving(caller, lease context.Context) (_ context.Context, cancel, detach func()) {
	inner, cancelInner := context.WithCancelCause(context.WithoutCancel(lease))
	ctx, release := inner, context.CancelFunc(func() {})
	if deadline, ok := lease.Deadline(); ok {
		// The deadline releases the callbacks, even if the caller's context never ends.
		ctx, release = context.WithDeadlineCause(inner, deadline, registry.ErrAttemptTimeout)
	}
	stopLease := context.AfterFunc(lease, func() { cancelInner(context.Cause(lease)) })
	stopCaller := context.AfterFunc(caller, func() { cancelInner(context.Cause(caller)) })
	context.AfterFunc(ctx, func() {
		stopCaller()
		cancelInner(context.Canceled)
		release()
	})
	return ctx, func() { cancelInner(context.Canceled) }, func() { stopLease() }
}
