package registry

import (
	"context"
	"slices"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

// Attempt is one try of a call on one provider.
type Attempt struct {
	// Provider is the name of the provider that was tried.
	Provider string `json:"provider"`
	// Why is the reason for the attempt.
	Why reason.Why `json:"why"`
	// Trial reports whether its breaker was half-open.
	Trial bool `json:"trial,omitempty"`
	// Mock reports whether the provider is a mock, or of an override.
	Mock bool `json:"mock,omitempty"`
	// Class is the class of the outcome.
	Class verdict.Class `json:"class"`
	// Delay is the time that the call slept or queued before it.
	Delay time.Duration `json:"delay,omitempty"`
	// Duration is the running time of the attempt.
	Duration time.Duration `json:"duration"`
	// Err is the error that the function returned.
	Err error `json:"error,omitempty"`
}

// CallReport describes the course of one call, or of the leases of one. [ReportTo] asks for it, and [Hooks] get it.
type CallReport struct {
	// Service is the name of the service, and Handler the handler of the query.
	Service string `json:"service"`
	Handler string `json:"handler,omitempty"`
	// Caller names the caller that is accountable for the call; see [Caller].
	Caller string `json:"caller,omitempty"`
	// Attempts are the tries so far, the successful one included, in order.
	Attempts []Attempt `json:"attempts"`
	// Duration is the time that the call took in all. It is filled in at the end.
	Duration time.Duration `json:"duration"`
	// Err is the error of the call, at its end.
	Err error `json:"error,omitempty"`

	skipped *skippedProviders // nil before the end
}

// Skipped returns the providers that were not tried and could not have been, or not for this call, each with the reason
// at the end of the call; none before that. The list is made by each call of Skipped, and is the caller's. A report costs
// the same with ten of them and with ten thousand.
func (r CallReport) Skipped() []Candidate {
	if r.skipped == nil {
		return nil
	}
	all := slices.Clone(r.skipped.read)
	for seen := range r.skipped.All() {
		all = append(all, candidateOf(seen))
	}
	return all
}

// IdempotencyKey returns a random key that is the same in every attempt of one call, for servers that recognise a
// request they have seen. ctx is the context that the function of a [Call] was given, or that of a lease; any other
// context, and those of attempts with [NoTimeout], have none: the result is empty.
func IdempotencyKey(ctx context.Context) string {
	return attemptctx.IdempotencyKey(ctx)
}

// copied returns a report that may be written to.
func (r CallReport) copied() CallReport {
	r.Attempts = slices.Clone(r.Attempts)
	return r
}

// prepareAttempt runs the hooks that may change the context of the function.
func (c *call) prepareAttempt() {
	c.query.service.meter.Waited(c.delay)
	if c.hooks == nil {
		return
	}
	c.state = callPreparing
	c.hookCtx = c.hooks.BeforeAttempt(c.functionContext(), func() CallReport { return c.soFar(c.attempts) }, c.attempt.present(c.why, c.delay))
	c.state = callRunning
}

// functionContext returns the context that the function of the attempt gets.
func (c *call) functionContext() context.Context {
	if c.hookCtx != nil {
		return c.hookCtx
	}
	return c.attempt.context(c.caller.Ctx)
}

// present describes the attempt in progress.
func (a *attempt) present(why reason.Why, delay time.Duration) Attempt {
	p := a.provider
	return Attempt{Provider: p.name(), Why: why, Trial: a.trial, Mock: p.mock() || p.overrideID > 0, Delay: delay}
}

// noteAttempt notes the outcome of the attempt and runs the hooks after it.
func (c *call) noteAttempt(class verdict.Class, elapsed time.Duration, err error) {
	ended := c.attempt.present(c.why, c.delay)
	ended.Class, ended.Duration, ended.Err = class, elapsed, err
	c.add(ended, c.cause)
	c.delay = 0
	if c.observed {
		c.tellAttempt(c.functionContext(), c.soFar(c.attempts), ended)
	}
}

// report makes the report of an observed call that has ended.
func (c *call) report(err error) {
	registry, report := c.query.service.registry, c.soFar(c.attempts)
	report.Err = err
	report.Duration = registry.now() - c.began
	report.skipped = c.skippedNow()
	if c.options.Report != nil {
		*c.options.Report = report
	}
	c.hooks.AfterCall(c.caller.Ctx, report.copied)
}

// skippedProviders has those that a report names as skipped.
type skippedProviders struct {
	sight.Skipped

	read []Candidate // in JSON
}

// skippedNow notes the providers that were not entered and could not have been, or not for this call.
func (c *call) skippedNow() *skippedProviders {
	var s skippedProviders
	plan := c.query.current()
	s.Sight, s.Skips = c.query.sightOf(plan), c.skips
	if plan.Bounded() { // latencies are compared one by one
		s.Sight.Note(plan, nil, &c.by.Name)
	}
	for _, p := range c.full {
		s.Full = append(s.Full, p.name())
	}
	for _, a := range c.attempts {
		s.Tried = append(s.Tried, a.Provider)
	}
	return &s
}

// failure returns the error of a call that has no answer.
func (c *call) failure() error {
	ended := c.caller.Err()
	var unavailable *UnavailableError
	if ended == nil && (c.entries == 0 || c.state == callExhausted) {
		unavailable = c.unavailable()
		if len(c.attempts) == 0 {
			return unavailable
		}
	}
	failure := &CallError{Service: c.query.service.name, Attempts: c.attempts, causes: c.causes, OnceOnly: c.allowed.OnceOnly()}
	switch {
	case ended != nil:
		failure.ended = []error{ended}
		if c.caller.Ctx.Err() != nil {
			failure.ended = fault.OfContext(c.caller.Ctx)
		}
		if c.entries == 0 {
			c.query.service.meter.MissFor(reason.ContextEnded)
		}
		return failure
	case unavailable == nil:
		failure.partial = true
		return failure.withRetryIn(c.query)
	}
	failure.RetryIn = unavailable.RetryIn
	if cause := unavailable.sight.Cause; cause != nil {
		failure.causes = append(failure.causes, cause)
	}
	failure.left = unavailable
	return failure
}

// unavailable returns the error of a call without a provider, or without another one.
func (c *call) unavailable() *UnavailableError {
	unavailable := c.query.unavailable(admitting, c.by, c.skips)
	if c.entries == 0 {
		c.query.service.meter.MissFor(unavailable.sight.MissCodes()...)
	}
	return unavailable
}
